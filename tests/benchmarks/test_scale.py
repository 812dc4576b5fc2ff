"""docs/scale.md is calculated from the rates that the benchmarks have measured."""

import sys

import pytest

from tests.conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import scale_page


@pytest.fixture
def rates():
    """Rates with which the results can be calculated by hand."""
    formats = {collection.audio_format for collection in scale_page.COLLECTIONS}
    return scale_page.Rates(
        {
            "machine": {"processor": "made", "cores": 2},
            "formats": {name: {"bytes_per_second": 10_000, "cpu_seconds_per_second": 0.01} for name in formats},
            "recognition_cpu_seconds_per_second": {"clips": 0.03, "long recordings": 0.03},
            "feature_bytes_per_second": 100_000,
            "row_bytes": 200,
            "manifest_seconds_per_row": 36e-6,
        },
        {"folders": {"recordings of 15 min": {"sides": {"1 job": speed(10), "2 jobs": speed(18)}}}},
        {
            "operations_per_second_of_speech": 1e10,
            "sides": {"torch, one by one": {"cpu_seconds_per_second": 0.2, "fraction_of_peak": 0.5}},
        },
    )


def speed(files):
    return {"files_per_second": files}


def cells(table, *starts):
    """Return the cells of the row that begins with some cells."""
    rows = [
        [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")] for line in table.splitlines()
    ]
    (row,) = [row for row in rows if row[: len(starts)] == list(starts)]
    return row[len(starts) :]


def test_core_hours_and_sizes_follow_from_the_rates(rates):
    table = scale_page.costs(rates)
    assert cells(table, "core hours, decoding")[0] == "100.0"
    assert cells(table, "core hours, recognition")[0] == "300"
    assert cells(table, "core hours, extraction instead")[0] == "2,000"
    assert cells(table, "hours in which one process reads the manifest")[1] == "1"
    assert cells(table, "audio to read")[0] == "360 GB"
    assert cells(table, "rows in Parquet")[1] == "20 GB"
    assert cells(table, "features of one block, 16 bits")[0] == "3.6 TB"


def test_elapsed_time_and_network_follow_from_the_efficiency(rates):
    calls = scale_page.COLLECTIONS[0].name
    assert rates.efficiency == pytest.approx(0.9)
    # 16 cores at 90 % do 14.4 core seconds per second, which are 360 seconds of audio at 0.04 each.
    assert cells(scale_page.machines(rates), calls, "recognition", "1") == ["27.8 h", "3.6 MB/s", ""]
    assert cells(scale_page.bottleneck(rates), calls, "recognition") == ["25.0 %", "278"]


def test_the_simulated_gpu_needs_cores_that_decode(rates):
    # 100e12 / 1e10 = 10,000 seconds of speech per second.
    assert cells(scale_page.simulate_gpu(rates), scale_page.COLLECTIONS[0].name) == [
        "10,000",
        "1.0 h",
        "100.0",
        "100 MB/s",
        "1.0 GB/s",
    ]


def test_the_page_is_that_of_the_recorded_rates():
    expected = scale_page.page(scale_page.Rates.read(scale_page.RESULTS))
    assert (ROOT / "docs" / "scale.md").read_text(encoding="utf-8") == expected
    assert "{{" not in expected
