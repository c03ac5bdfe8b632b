from pathlib import Path

import pytest

from asrcompress.data.corpora._wsj_discs import TR_S, Discs, entries
from asrcompress.errors import UserError

LINES = {  # a line of an index file -> id, disc, inner path
    "11_1_1:wsj0/si_tr_s/zz0/zz0c0201.wv1": ("zz0c0201", "11-1.1", "wsj0/si_tr_s/zz0/zz0c0201.wv1"),
    "13_16_1: wsj1/si_dt_20/zz1/zz1c0301.wv1 ": ("zz1c0301", "13-16.1", "wsj1/si_dt_20/zz1/zz1c0301.wv1"),
    "13_16_1:/wsj1/si_dt_20/zz1/zz1c0301.wv1": ("zz1c0301", "13-16.1", "wsj1/si_dt_20/zz1/zz1c0301.wv1"),
    "13_16_1: /WSJ1/SI_DT_20/ZZ1/ZZ1C0301.WV1\r": ("zz1c0301", "13-16.1", "wsj1/si_dt_20/zz1/zz1c0301.wv1"),
    "11_14_1:wsj0/si_et_20/zz4/zz4c0201": ("zz4c0201", "11-14.1", "wsj0/si_et_20/zz4/zz4c0201.wv1"),
    "13_32_1:wsj1/si_et_h1/zz5/zz5c0201.wv1": ("zz5c0201", "13-33.1", "wsj1/si_et_h1/zz5/zz5c0201.wv1"),
    "11_2_1:wsj0/si_tr_s/401/401c0201.wv1": ("401c0201", "11-2.1", "wsj0/si_tr_s/401/401c0201.wv1"),
    "; a comment with a caf\xe9": None,
    "\r": None,
}


def test_every_form_of_an_index_line(tmp_path: Path) -> None:
    path = tmp_path / "x.ndx"
    path.write_bytes("\n".join(LINES).encode("latin-1") + b"\n\x1a")
    assert entries(path) == [entry for entry in LINES.values() if entry]


@pytest.mark.parametrize("line", [
    "wsj0/si_tr_s/zz0/zz0c0201.wv1", "11_1:wsj0/si_tr_s/zz0/zz0c0201.wv1", "11_1_1:zz0/zz0c0201.wv1", "11_1_1:",
    "11_1_1:wsj0/si_tr_s/zz0/zz0c02.wv1", "11_1_1:wsj0/si_tr_s/zz0/zz0c0201.wv1 11_1_1:wsj0/si_tr_s/zz0/zz0c0202.wv1"])
def test_bad_index_lines_are_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ndx"
    path.write_text(f"; an index\n\n{line}\n")
    with pytest.raises(UserError, match=f"{path}, line 3: .* is not DISC:PATH, such as 11_1_1:wsj0/"):
        entries(path)
    with pytest.raises(UserError, match="cannot be read"):
        entries(tmp_path)


def test_files_are_found_by_their_inner_path_in_any_case(tmp_path: Path) -> None:
    base = tmp_path / "13-32.1" / "WSJ1" / "DOC" / "LNG_MODL" / "BASE_LM"
    for path in (base / "TCB20ONP.Z", base / "BCB20ONP.Z", tmp_path / "13-32.1" / "WSJ1" / "notes.txt",
                 tmp_path / "a/b/c/d/e/wsj1/doc/too_deep.txt", tmp_path / "a/b/13_33_1/wsj1/doc/readme.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    discs = Discs(None, tmp_path, pytest.fail)
    assert discs.find("wsj1/doc/lng_modl/base_lm/tcb20onp.z") == base / "TCB20ONP.Z"
    assert discs.find("wsj1/doc/lng_modl/base_lm/tcb05cnp.z") is None
    assert discs.files("wsj1/doc/lng_modl/") == [base / "BCB20ONP.Z", base / "TCB20ONP.Z"]
    assert [path.name for path in discs.files("wsj1/doc")] == ["BCB20ONP.Z", "TCB20ONP.Z", "readme.txt"]


def test_speaker_401_is_left_out_of_its_own_disc_only(tmp_path: Path) -> None:
    index = tmp_path / "11-13.1" / TR_S
    index.parent.mkdir(parents=True)
    index.write_text("11_2_1:wsj0/si_tr_s/401/401c0201.wv1\n11_3_1:wsj0/si_tr_s/401/401c0202.wv1\n"
                     "11_2_1:wsj0/si_tr_s/zz0/zz0c0201.wv1\n")
    assert [one.id for one in Discs(tmp_path, None).utterances(TR_S, "11-13.1")] == ["401c0202", "zz0c0201"]
