"""Containers find each other by name: the resolvers of C, Python, BIND and busybox inside sandboxes."""

import re

import dns.flags
import dns.message
import dns.rcode
import pytest

from tests.clients.lab import OUTSIDE, Lab, python
from tests.clients.nameserver import EMBEDDED, Upstream, addresses, ask, ask_over, look_up
from tests.daemons import Client
from tests.hosts import wait_until


@pytest.fixture
def blue(docker: Client) -> str:
    docker("network", "create", "--subnet", "10.20.0.0/24", "blue")
    return "blue"


@pytest.fixture
def green(docker: Client) -> str:
    docker("network", "create", "--subnet", "10.30.0.0/24", "green")
    return "green"


def _bare(docker: Client, name: str, network: str, *flags: str) -> str:
    """A sandbox without a process on a network."""
    return docker("run", "-d", "--name", name, "--network", network, *flags, "sandbox")


# ---------------------------------------------------------------------- what has a name


@pytest.fixture
def pair(lab: Lab, docker: Client, blue: str) -> str:
    """`box` asks; `web` has every kind of name, at 10.20.0.7. Returns web's id."""
    lab.idle("box", "--network", blue)
    return _bare(
        docker,
        "web",
        blue,
        "--ip",
        "10.20.0.7",
        "--hostname",
        "www",
        "--network-alias",
        "front",
        "--network-alias",
        "f2",
    )


def test_every_name_by_the_c_library(lab: Lab, docker: Client, pair: str):
    for name in ("web", "front", "f2", "www", pair[:12], "web.blue", "front.blue", "WEB", "Web.BLUE", "web."):
        assert docker("exec", "box", "getent", "hosts", name).split()[0] == "10.20.0.7", name
    with Upstream(lab.outside, OUTSIDE):
        for name in ("nobody", "web.green", "web.blue.example", pair, pair[:11]):
            assert docker.refused("exec", "box", "getent", "hosts", name).code == 2, name


def test_python_both_ways(lab: Lab, docker: Client, pair: str):
    script = "import socket; print(socket.getaddrinfo('front', 80, type=socket.SOCK_STREAM)[0][4][0])"
    assert docker("exec", "box", *python(script)) == "10.20.0.7"
    script = "import socket; print(socket.gethostbyaddr('10.20.0.7')[0])"
    assert docker("exec", "box", *python(script)) == "web.blue"


def test_dig_over_udp_and_over_tcp(lab: Lab, docker: Client, pair: str):
    for flags in ([], ["+tcp"], ["+noedns"], ["+bufsize=512"]):
        answer = docker("exec", "box", "dig", "+time=2", "+tries=1", *flags, "web")
        assert "status: NOERROR" in answer
        assert re.search(r"^web\.\s+600\s+IN\s+A\s+10\.20\.0\.7$", answer, re.MULTILINE), "the TTL is Docker's"
        assert f"SERVER: {EMBEDDED}#53" in answer
    assert docker("exec", "box", "dig", "+short", "-x", "10.20.0.7") == "web.blue."


def test_busybox(lab: Lab, docker: Client, pair: str):
    answer = docker("exec", "box", "busybox", "nslookup", "web")
    assert re.search(r"Address( 1)?: +10\.20\.0\.7", answer)
    assert docker("exec", "box", "busybox", "ping", "-c", "1", "-W", "2", "web").count("10.20.0.7")


def test_the_case_of_the_question_is_kept(lab: Lab, docker: Client, pair: str):
    answer = ask(lab.sandbox("box"), "wEb.BluE")
    assert answer.question[0].name.to_text() == "wEb.BluE."
    assert answer.answer[0].name.to_text() == "wEb.BluE."


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "NS", "HTTPS"])
def test_a_known_name_without_such_a_record_is_an_empty_answer(lab: Lab, docker: Client, pair: str, kind: str):
    answer = ask(lab.sandbox("box"), "web", kind)
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


def test_an_exposed_port_with_a_name_has_srv_records(lab: Lab, docker: Client, pair: str):
    _bare(docker, "shop", "blue", "--expose", "80", "--expose", "53/udp", "--expose", "12321")
    for name in ("_http._tcp.shop", "_http._tcp.shop.blue"):
        assert docker("exec", "box", "dig", "+short", "SRV", name) == "0 0 80 shop.blue."
    assert docker("exec", "box", "dig", "+short", "SRV", "_domain._udp.shop") == "0 0 53 shop.blue."
    assert docker("exec", "box", "dig", "+short", "SRV", "_smtp._tcp.shop") == ""


def test_a_container_finds_itself(lab: Lab, docker: Client, pair: str):
    assert look_up(lab.sandbox("web"), "web") == look_up(lab.sandbox("web"), "front") == ["10.20.0.7"]


def test_many_questions_on_one_connection(lab: Lab, docker: Client, pair: str):
    box = lab.sandbox("box")
    with box.connect(EMBEDDED, 53) as connection:
        for name in ("web", "front", "www", "web.blue") * 5:
            assert addresses(ask_over(connection, dns.message.make_query(name, "A"))) == ["10.20.0.7"]
    assert look_up(box, "web", tcp=True) == ["10.20.0.7"]


# ---------------------------------------------------------------------- who sees what


def test_names_resolve_on_shared_networks_only(lab: Lab, docker: Client, blue: str, green: str):
    _bare(docker, "left", blue)
    _bare(docker, "right", green)
    _bare(docker, "both", blue, "--ip", "10.20.0.9")
    docker("network", "connect", "--ip", "10.30.0.9", green, "both")
    left, right, both = map(lab.sandbox, ("left", "right", "both"))
    assert look_up(left, "right") == look_up(right, "left") == []
    assert look_up(left, "both") == ["10.20.0.9"]
    assert look_up(right, "both") == ["10.30.0.9"]
    assert look_up(left, "both.green") == [] == look_up(right, "both.blue")
    assert look_up(both, "left.blue") == ["10.20.0.2"]
    assert look_up(both, "right") == ["10.30.0.2"]
    assert ask(left, "2.0.30.10.in-addr.arpa", "PTR").answer == [], "nor addresses"


def test_one_alias_on_two_networks_is_two_names(lab: Lab, docker: Client, blue: str, green: str):
    _bare(docker, "one", blue, "--network-alias", "db", "--ip", "10.20.0.5")
    _bare(docker, "two", green, "--network-alias", "db", "--ip", "10.30.0.5")
    _bare(docker, "left", blue)
    _bare(docker, "right", green)
    _bare(docker, "both", blue)
    docker("network", "connect", green, "both")
    assert look_up(lab.sandbox("left"), "db") == ["10.20.0.5"]
    assert look_up(lab.sandbox("right"), "db") == ["10.30.0.5"]
    both = lab.sandbox("both")
    assert look_up(both, "db.blue") == ["10.20.0.5"]
    assert look_up(both, "db.green") == ["10.30.0.5"]
    assert look_up(both, "db") in (["10.20.0.5"], ["10.30.0.5"])


def test_containers_that_share_an_alias_take_turns(lab: Lab, docker: Client, blue: str):
    for number in range(3):
        _bare(docker, f"db{number}", blue, "--network-alias", "db", "--ip", f"10.20.0.{20 + number}")
    _bare(docker, "box", blue)
    box = lab.sandbox("box")
    everyone = {f"10.20.0.{20 + number}" for number in range(3)}
    answers = [look_up(box, "db") for _ in range(9)]
    assert all(set(answer) == everyone and len(answer) == 3 for answer in answers)
    assert {answer[0] for answer in answers} == everyone
    docker("rm", "-f", "db1")
    assert set(look_up(box, "db")) == everyone - {"10.20.0.21"}


def test_a_link_is_seen_by_the_linker_alone(lab: Lab, docker: Client, blue: str):
    _bare(docker, "linker", blue, "--link", "store:warehouse")
    _bare(docker, "other", blue)
    linker, other = lab.sandbox("linker"), lab.sandbox("other")
    assert look_up(linker, "warehouse") == [], "its target need not be there yet"
    _bare(docker, "store", blue, "--ip", "10.20.0.5")
    assert look_up(linker, "warehouse") == look_up(linker, "warehouse.blue") == ["10.20.0.5"]
    assert look_up(linker, "store") == ["10.20.0.5"]
    assert look_up(other, "warehouse") == []
    docker("stop", "store")
    assert look_up(linker, "warehouse") == []


# ---------------------------------------------------------------------- what changes


def test_a_stopped_container_has_no_name(lab: Lab, docker: Client, pair: str):
    box = lab.sandbox("box")
    docker("stop", "web")
    assert look_up(box, "web") == look_up(box, "front") == look_up(box, "web.blue") == []
    assert ask(box, "7.0.20.10.in-addr.arpa", "PTR").answer == []
    docker("start", "web")
    assert look_up(box, "web") == ["10.20.0.7"]


def test_rename(lab: Lab, docker: Client, pair: str):
    box = lab.sandbox("box")
    docker("rename", "web", "shop")
    assert look_up(box, "web") == look_up(box, "web.blue") == []
    assert look_up(box, "shop") == look_up(box, "shop.blue") == look_up(box, "front") == ["10.20.0.7"]
    assert look_up(box, "7.0.20.10.in-addr.arpa", "PTR") == ["shop.blue."]


def test_a_change_is_there_when_the_call_returns(lab: Lab, docker: Client, blue: str, green: str):
    _bare(docker, "box", blue)
    _bare(docker, "guest", green)
    box, guest = lab.sandbox("box"), lab.sandbox("guest")
    with Upstream(lab.outside, OUTSIDE):
        for number in range(2, 40):
            aliases = {"Aliases": [f"n{number}"], "IPAMConfig": {"IPv4Address": f"10.20.0.{number + 100}"}}
            body = {"Container": "guest", "EndpointConfig": aliases}
            assert lab.api("POST", "/networks/blue/connect", body).status == 200
            assert look_up(box, f"n{number}") == look_up(box, "guest") == [f"10.20.0.{number + 100}"]
            assert look_up(guest, "box") == ["10.20.0.2"]
            assert lab.api("POST", "/networks/blue/disconnect", {"Container": "guest"}).status == 200
            assert look_up(box, f"n{number}") == look_up(box, "guest") == look_up(guest, "box") == []


def test_the_name_of_who_could_not_be_connected_is_withdrawn(lab: Lab, docker: Client, blue: str, green: str):
    _bare(docker, "box", blue)
    _bare(docker, "web", green)
    box = lab.sandbox("box")
    with Upstream(lab.outside, OUTSIDE):
        lab.here.ip("-n", "web", "link", "add", "eth1", "type", "bridge")  # in the way of what is to come
        assert "File exists" in docker.refused("network", "connect", blue, "web").text
        wait_until(lambda: look_up(box, "web") == [], "the name is withdrawn")
        lab.here.ip("-n", "web", "link", "del", "eth1")
        docker("network", "connect", blue, "web")
        assert look_up(box, "web") == ["10.20.0.3"]


def test_the_first_network_of_a_running_container_brings_names(lab: Lab, docker: Client, blue: str):
    lab.idle("box")
    _bare(docker, "web", blue, "--ip", "10.20.0.7")
    with Upstream(lab.outside, OUTSIDE):
        for _ in range(2):
            assert docker.refused("exec", "box", "getent", "hosts", "web").code == 2
            docker("network", "connect", blue, "box")
            assert docker("exec", "box", "getent", "hosts", "web").split()[0] == "10.20.0.7"
            docker("network", "disconnect", blue, "box")


# ---------------------------------------------------------------------- port 53 is the container's


def test_a_container_runs_a_name_server_of_its_own(lab: Lab, docker: Client, blue: str):
    lab.serve("dns", "--network", blue, "--ip", "10.20.0.53", speak=("udp:53", "tcp:53"))
    _bare(docker, "box", blue)
    box, dns_box = lab.sandbox("box"), lab.sandbox("dns")
    assert box.ask("10.20.0.53", 53) == "dns sees 10.20.0.2"
    assert box.fetch("10.20.0.53", 53) == "dns sees 10.20.0.2"
    assert dns_box.ask("127.0.0.1", 53) == "dns sees 127.0.0.1"
    assert look_up(dns_box, "box") == look_up(dns_box, "box", tcp=True) == ["10.20.0.2"]
    assert docker("exec", "dns", "getent", "hosts", "box").split()[0] == "10.20.0.2"


# ---------------------------------------------------------------------- the default bridge


def test_the_default_bridge_has_no_names(lab: Lab, docker: Client):
    lab.write_resolv_conf("nameserver 192.0.2.2\nsearch lab.example\noptions timeout:1\n")
    lab.idle("box")
    lab.idle("web")
    assert _settings(docker, "box") == ["nameserver 192.0.2.2", "search lab.example", "options timeout:1"]
    with pytest.raises(OSError):
        ask(lab.sandbox("box"), "web", timeout=0.3)
    assert "netengine-dns" not in docker("exec", "--privileged", "box", "nft", "list", "ruleset")


def test_loopback_servers_of_the_host_are_of_no_use_on_the_default_bridge(lab: Lab, docker: Client):
    lab.write_resolv_conf("nameserver 127.0.0.1\nnameserver 192.0.2.2\n")
    lab.idle("box")
    assert _settings(docker, "box") == ["nameserver 192.0.2.2"]


def test_behind_the_stub_of_systemd_resolved_its_real_servers_are_used(lab: Lab, docker: Client):
    directory = lab.here.path("/run/systemd/resolve")
    directory.mkdir(parents=True)
    try:
        (directory / "resolv.conf").write_text("nameserver 192.0.2.77\n")
        lab.write_resolv_conf("nameserver 127.0.0.53\noptions edns0\n")
        lab.idle("box")
        assert _settings(docker, "box") == ["nameserver 192.0.2.77"]
    finally:
        (directory / "resolv.conf").unlink()
        directory.rmdir()
        directory.parent.rmdir()


# ---------------------------------------------------------------------- the three files


def _settings(docker: Client, name: str) -> list[str]:
    """The lines of a container's resolv.conf that count."""
    return [line for line in docker("exec", name, "cat", "/etc/resolv.conf").splitlines() if line[:1] not in "#;"]


def _hosts(docker: Client, name: str) -> list[list[str]]:
    """The lines of a container's /etc/hosts, without those of loopback addresses."""
    lines = (line.split() for line in docker("exec", name, "cat", "/etc/hosts").splitlines())
    return [line for line in lines if line and line[0][0] != "#" and line[0] not in ("127.0.0.1", "::1")]


def test_resolv_conf_on_a_network_with_names(lab: Lab, docker: Client, blue: str):
    lab.write_resolv_conf("nameserver 192.0.2.2\nsearch lab.example\noptions timeout:1\n")
    lab.idle("plain", "--network", blue)
    assert _settings(docker, "plain") == [f"nameserver {EMBEDDED}", "search lab.example", "options timeout:1 ndots:0"]
    flags = ["--dns", "192.0.2.9", "--dns-search", "a.example", "--dns-search", "b.example", "--dns-option", "ndots:2"]
    lab.idle("special", "--network", blue, *flags)
    assert _settings(docker, "special") == [f"nameserver {EMBEDDED}", "search a.example b.example", "options ndots:2"]
    lab.idle("unsought", "--network", blue, "--dns-search", ".")
    assert _settings(docker, "unsought") == [f"nameserver {EMBEDDED}", "options timeout:1 ndots:0"]


def test_resolv_conf_on_the_default_bridge(lab: Lab, docker: Client):
    lab.idle("box", "--dns", "192.0.2.9", "--dns", "192.0.2.10", "--dns-search", "a.example", "--dns-option", "ndots:2")
    assert _settings(docker, "box") == [
        "nameserver 192.0.2.9",
        "nameserver 192.0.2.10",
        "search a.example",
        "options ndots:2",
    ]


def test_lines_of_hosts_come_and_go_with_networks(lab: Lab, docker: Client, blue: str, green: str):
    flags = ["--hostname", "www", "--domainname", "shop.example", "--add-host", "store:198.51.100.7"]
    lab.idle("web", "--network", blue, *flags, "--add-host", "machine:host-gateway")
    added = [["198.51.100.7", "store"], ["172.17.0.1", "machine"]]
    own = ["www.shop.example", "www"]
    assert _hosts(docker, "web") == [["10.20.0.2", *own], *added]
    docker("network", "connect", green, "web")
    assert _hosts(docker, "web") == [["10.20.0.2", *own], ["10.30.0.2", *own], *added]
    docker("network", "disconnect", blue, "web")
    assert _hosts(docker, "web") == [["10.30.0.2", *own], *added]
    assert docker("exec", "web", "cat", "/etc/hostname") == docker("exec", "web", "hostname") == "www"


@pytest.mark.parametrize("file", ["hosts", "resolv.conf"])
def test_a_file_that_its_owner_edited_is_left_alone(lab: Lab, docker: Client, blue: str, green: str, file: str):
    lab.idle("web", "--network", blue)
    docker("exec", "web", "sh", "-c", f"echo '# mine' >> /etc/{file}")
    edited = docker("exec", "web", "cat", f"/etc/{file}")
    docker("network", "connect", green, "web")
    docker("network", "disconnect", blue, "web")
    docker("restart", "-t", "0", "web")
    assert docker("exec", "web", "cat", f"/etc/{file}") == edited
    assert edited.endswith("# mine")


def test_a_long_answer_is_cut_for_small_packets_and_whole_over_tcp(lab: Lab, docker: Client, blue: str):
    for number in range(40):
        docker("create", "--name", f"c{number}", "--network", blue, "--network-alias", "crowd", "sandbox")
        assert lab.api("POST", f"/containers/c{number}/start").status == 204
    box = lab.sandbox("c0")
    cut = ask(box, "crowd")
    assert cut.flags & dns.flags.TC
    assert len(cut.to_wire()) <= 512
    assert len(look_up(box, "crowd", payload=1232)) == 40
    whole = ask(box, "crowd", tcp=True)
    assert not whole.flags & dns.flags.TC
    assert len(addresses(whole)) == 40
