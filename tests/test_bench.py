from dev.bench.figures import percentile, ratio, spread
from dev.bench.report import Section, Table, markdown


def test_figures_are_the_median_with_what_they_spread_over() -> None:
    assert f"{spread([3, 1, 2]):.1f}" == "2.0 (1.0…3.0)"
    assert f"{spread([2, 2]):.0f}" == "2"


def test_a_ratio_is_taken_within_each_round() -> None:
    assert f"{ratio([2, 40], [1, 10]):.0f}" == "3 (2…4)"


def test_a_percentile_is_one_of_the_values() -> None:
    assert [percentile(range(100, 0, -1), percent) for percent in (50, 99)] == [51, 100]


def test_the_page_has_what_measured_then_each_question_with_its_tables_and_what_they_say() -> None:
    tables = [Table([{"case": "a", "ms": "1"}, {"case": "b", "ms": "12"}], "here"), Table([{"case": "c"}])]
    page = markdown({"cores": "2"}, [Section("How long?", "So it was measured.", tables, "It took 1 ms.")])
    _, section = page.split("\n## ")

    assert "\n| measured on   |    |\n|---------------|----|\n| cores         | 2  |\n" in page
    assert (
        section
        == """\
How long?

So it was measured.

here:

| case   |   ms |
|--------|------|
| a      |    1 |
| b      |   12 |

| case   |
|--------|
| c      |

It took 1 ms.
"""
    )
