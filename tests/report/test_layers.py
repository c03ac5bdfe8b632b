"""The picture of a byte budget."""

from pathlib import Path

from asrcompress.compression import LayerRecord
from asrcompress.report import layers


def test_the_picture_takes_any_number_of_layers(tmp_path: Path) -> None:
    rows = [LayerRecord(str(i), (4, 4), "svd", 16, 8, quantization=f"q{i}", bytes=i, damage=i / 10) for i in range(30)]
    layers.plot(rows, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
