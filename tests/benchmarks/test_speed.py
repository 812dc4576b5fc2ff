"""docs/speed.md and README.md quote the results of the benchmarks."""

import sys

from tests.conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

from scale_page import RESULTS
from speed_page import page, read, recognize_rows


def test_the_page_is_that_of_the_recorded_results():
    expected = page(read(RESULTS))
    assert "{{" not in expected
    assert (ROOT / "docs" / "speed.md").read_text(encoding="utf-8") == expected


def test_the_readme_quotes_the_benchmark():
    results = read(RESULTS)["recognize"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, cells in recognize_rows(results).items():
        assert f"| {name} | {' | '.join(cells)} |" in readme
    assert results["machine"]["processor"] in readme
