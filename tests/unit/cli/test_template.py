"""The subset of Go templates."""

from __future__ import annotations

import pytest

from netengine.cli.template import Template
from netengine.errors import Invalid

DATA = {
    "Name": "web",
    "Running": True,
    "Count": 3,
    "Nothing": None,
    "Empty": {},
    "List": ["a", "b"],
    "Ports": {"80/tcp": [{"HostPort": "8080"}], "443/tcp": None},
    "Nets": {"b": {"IP": "2"}, "a": {"IP": "1"}},
    "Label": lambda key: f"<{key}>",
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain", "plain"),
        ("{{.Name}}-{{ .Running }}", "web-true"),
        ("{{.Nets.a.IP}}", "1"),
        ("{{.List}} {{.Nothing}}", "[a b] <no value>"),
        ("{{json .List}}{{.Name | json}}", '["a","b"]"web"'),
        ("{{range .List}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range $i, $x := .List}}{{$i}}{{$x}}{{$.Name}} {{end}}", "0aweb 1bweb "),
        ("{{range $k, $v := .Nets}}{{$k}}={{$v.IP}};{{end}}", "a=1;b=2;"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range $p, $b := .Ports}}{{if $b}}{{$p}}->{{(index $b 0).HostPort}}{{end}}{{end}}", "80/tcp->8080"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{index .Nets "zz"}}', ""),
        ('{{if eq .Name "db" "web"}}yes{{else}}no{{end}}', "yes"),
        ("{{if .Empty}}1{{else if .Nothing}}2{{else}}3{{end}}", "3"),
        ("{{if and .Running (gt .Count 2)}}busy{{end}}", "busy"),
        ("{{with .Nets.a}}{{.IP}}{{$.Name}}{{end}}", "1web"),
        ("{{$x := .Name}}{{upper $x}}", "WEB"),
        ('{{join .List ", "}} {{len .List}}', "a, b 2"),
        ('{{.Label "k"}}', "<k>"),
        ('{{println .Name "x"}}', "web x\n"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{/* note */}}x", "x"),
        ('{{`raw"`}}', 'raw"'),
        ("{{truncate .Name 2}}", "we"),
        ("{{not .Running}}", "false"),
        ('{{range .List}}{{if eq . "a"}}first{{else}}next{{end}} {{end}}', "first next "),
    ],
)
def test_renders(source, expected):
    assert Template(source).render(DATA) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Nme}}", "no field 'Nme' here; there are: Count"),
        ("{{.Name.X}}", "has no fields"),
        ("{{.Nothing.X}}", "is empty"),
        ("{{.Name", "is not closed"),
        ("{{if .Name}}x", "has no {{end}}"),
        ("x{{end}}", "without an if"),
        ("{{printf .Name}}", "no function 'printf'; there are: and"),
        ("{{json}}", "wrong number of arguments for json"),
        ("{{index .List 7}}", "index 7 is out of range"),
        ("{{index .List -1}}", "index -1 is out of range"),
        ("{{.Name 1}}", "takes no arguments"),
        ("{{.Label}}", "takes an argument"),
        ("{{$x}}", "variable $x is not defined"),
        ("{{(.Name}}", "')' is missing"),
        ("{{}}", "is empty"),
        ("{{.Name ~}}", "cannot read '~'"),
        ("{{gt .Name 1}}", "cannot compute gt"),
        ("{{range .Count}}{{end}}", "cannot range over '3'"),
        ('{{template "x"}}', "not supported"),
    ],
)
def test_refuses(source, message):
    with pytest.raises(Invalid) as caught:
        Template(source).render(DATA)
    assert message in caught.value.message


def test_an_else_if_without_its_end_is_told():
    with pytest.raises(Invalid, match="end"):
        Template("{{if .A}}1{{else if .B}}2")


def test_python_attributes_are_out_of_reach():
    with pytest.raises(Invalid):
        Template("{{.Name.__class__}}").render(DATA)
