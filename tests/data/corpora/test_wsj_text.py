from pathlib import Path

import pytest

from asrcompress.data.corpora import _wsj_text
from asrcompress.errors import UserError

# What stands in a .dot file, and the words that are said. Sentences are invented.
RULES = {
    "The old table": "THE OLD TABLE",
    r"The U\. S\. mail": "THE U. S. MAIL",
    "[loud_breath] we walked [lip_smack]": "WE WALKED",
    "we walked[tongue_click] home": "WE HOME",  # a noise inside a word makes noise of it
    "we walked [<door_slam] home": "WE WALKED HOME",
    "we [door_slam>] walked home": "WE WALKED HOME",
    "we [phone_ring/] walked [/phone_ring] home": "WE WALKED HOME",
    "we <walked> home": "WE WALKED HOME",
    r"<don't> <mr\.> ask": "DON'T MR. ASK",
    "we walked ~": "WE WALKED",
    "~ we . walked": "WE WALKED",
    "~~": "",
    "[cough] .": "",
    "": "",
    r"we \,comma walked \.period": "WE ,COMMA WALKED .PERIOD",
    r'\"double\-quote we walked \"end\-quote': '"DOUBLE-QUOTE WE WALKED "END-QUOTE',
    "home \\-\\-dash at last": "HOME -DASH AT LAST",
    "home \\-dash at last": "HOME -DASH AT LAST",
    r"ten \%percent of two \.point five": "TEN PERCENT OF TWO POINT FIVE",
    "*we* walked ho:me now!": "WE WALKED HOME NOW",
    "!now we *walk:ed*": "NOW WE WALKED",
    r"at six \:colon now \!exclamation\-point": "AT SIX :COLON NOW !EXCLAMATION-POINT",
    "don`t ask corp\\;": "DON'T ASK CORP.",
    "\\(in-parenthesis we walked": "(IN-PARENTHESES WE WALKED",
    "share -holder compaign approaches- reseachers": "SHARE HOLDER CAMPAIGN APPROACHES RESEARCHERS",
    "the govern(ment) fell": "THE GOVERN(MENT) FELL",  # a fragment is in no lexicon, so load_cuts leaves it out
    "  we \t walked ": "WE WALKED",
}


@pytest.mark.parametrize("raw", RULES)
def test_every_rule(raw: str) -> None:
    assert _wsj_text.normalize(raw) == RULES[raw]
    assert _wsj_text.normalize(RULES[raw]) == RULES[raw], "what is normal stays"


def test_lines_are_read_whatever_ends_them_and_odd_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "zz0c0100.dot"
    path.write_bytes(b"We  walked (zz0c0101)\r\n\r\nThe end\t(ZZ0C0102)\ncaf\xe9(zz0c0103)\n(zz0c0104)\nno id\n"
                     b"of another (zz0c01)\n\x1a")
    said: list[str] = []
    assert _wsj_text.read([path], said.append) == {
        "zz0c0101": "We walked", "zz0c0102": "The end", "zz0c0103": "caf\xe9", "zz0c0104": ""}
    assert said == [f"{path}, line 6: 'no id' is not 'TEXT (ID)'; left out",
                    f"{path}, line 7: 'of another (zz0c01)' is not 'TEXT (ID)'; left out"]


def test_copies_must_agree(tmp_path: Path) -> None:
    one, two = tmp_path / "one.dot", tmp_path / "two.dot"
    one.write_text("We walked (zz0c0101)\n")
    two.write_text("We  walked (zz0c0101)\nAnd more (zz0c0102)\n")
    assert _wsj_text.read([one, two], pytest.fail) == {"zz0c0101": "We walked", "zz0c0102": "And more"}
    two.write_text("We ran (zz0c0101)\n")
    with pytest.raises(UserError, match=f"{two} and {one} have different text for zz0c0101; keep the right one"):
        _wsj_text.read([one, two], pytest.fail)
