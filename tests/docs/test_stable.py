"""What makes transcripts comparable: random values become stable ones, and only they."""

from __future__ import annotations

from pathlib import Path

from tests.docs.live import Stable, sessions

ID = "5838412a90867d729b20165dc3088443d06609ddb6dbede31d2c35a7a3af725c"
OTHER = "d3096d6c47528b78723a39b321911b0e6bf8992b823755bfb6c2d2cd24ff5a01"


def test_an_id_and_its_beginning_stay_together() -> None:
    stable = Stable()
    long, short = stable(ID), stable(f"br-{ID[:12]}")
    assert long != ID
    assert short == f"br-{long[:12]}"
    assert stable(OTHER)[:12] != long[:12]


def test_the_same_session_with_other_ids_reads_the_same() -> None:
    assert Stable()(f"{ID} {OTHER} {ID[:12]}") == Stable()(f"{OTHER} {ID} {OTHER[:12]}")


def test_macs_stay_macs() -> None:
    mac = Stable()("link/ether d2:6e:98:eb:ca:a3 brd ff:ff:ff:ff:ff:ff").split()
    assert mac[1] != "d2:6e:98:eb:ca:a3"
    assert int(mac[1][:2], 16) & 3 == 2, "locally administered, unicast"
    assert mac[3] == "ff:ff:ff:ff:ff:ff"


def test_the_order_of_elements_does_not_matter() -> None:
    one = 'elements = { "docker0",\n\t\t\t     "br-a" }'
    other = 'elements = { "br-a",\n\t\t\t     "docker0" }'
    assert Stable()(one) == Stable()(other) == other


def test_addresses_ports_and_words_are_left_alone() -> None:
    text = "tcp . 8080 : 172.18.0.2 . 80, group 28261, proto 110, veth and vethernet"
    assert Stable()(text) == text


def test_a_session_is_its_prompts_and_what_they_print(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# t\n\n<!-- live -->\n```console\n$ one\n# not a prompt\nbeta$ two\n```\n")
    (session,) = sessions(page)
    assert session.prompts == ["$ one", "beta$ two"]
    assert session.run(lambda host, command: f"{host} ran {command}\n") == [
        *("$ one", "alpha ran one"),
        *("beta$ two", "beta ran two"),
    ]
