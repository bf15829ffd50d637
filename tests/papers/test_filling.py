"""The papers' tables: their numbers, typed in again here, and ours put beside them."""

import csv
import io
import json
import re

import numpy as np
import pytest

from prnet.entry import shipped, shipped_values
from prnet.papers.filling import fill, listing, write_table
from prnet.papers.formats import FilledRow, FilledTable, escape_latex, to_csv, to_latex, to_markdown
from prnet.papers.published import (
    TABLES_DIR,
    Cell,
    Footnote,
    find_tables,
    parse_marked,
    published_tables,
    read_published,
)
from prnet.reports.reading import find_reports, read_report
from prnet.reports.shipped import Shipped
from tests.evaluations import made_report

SHIPPED = Shipped(**shipped())
DEFAULT = SHIPPED.protocols["default"]
TABLES = {(table.paper, table.table): table for table in published_tables()}
BINS = ("0-30", "30-60", "60-90")

# Read from the papers a second time, as (paper, table, method, column, value).
LITERALS = """
prn 1 | SDM | AFLW2000-3D: 60 to 90 | 9.67
prn 1 | Yu et al. | AFLW2000-3D: 30 to 60 | 6.06
prn 1 | PAWF | AFLW-LFPA: Mean | 4.72
prn 1 | DeFA | AFLW-LFPA: Mean | 3.86
prn 1 | PRN | AFLW2000-3D: 0 to 30 | 2.75
prn 1 | PRN | AFLW-LFPA: Mean | 2.93
prn 2 | VRN-Guided | Time | 69.0
prn 2 | 3DSTN | Time | 19.0
prn 2 | PRN | Time | 9.8
prn fig5 | PRN | 68 landmarks: 3D | 4.70
prn fig7 | DeFA | 45K points: 2D | 4.44
prn fig8 | VRN-Guided | Florence | 5.26
prn fig9 | PRN | Florence: 0 to 30 | ?
prn fig10 | weight ratio 2 (1:1:1:0) | 45K points: 2D | ?
sadrnet 1 | 3DDFA | 68 points, 2D: Mean | 6.03
sadrnet 1 | SPDT | 68 points, 2D: 60 to 90 | 4.11
sadrnet 1 | CMD | 68 points, 2D: Balanced | 3.90
sadrnet 1 | Nonlinear 3DMM | 68 points, 2D: Balanced | 4.12
sadrnet 1 | DAMDN | 68 points, 2D: 30 to 60 | 3.83
sadrnet 1 | 3DDFAv2 | 45K points, 3D: Mean | 4.18
sadrnet 1 | SADRNet | 68 points, 3D: Mean | 4.33
sadrnet 1 | SADRNet | 45K points, 2D: Mean | 2.93
sadrnet 2 | PRN | AFLW2000-3D: 60 to 90 | 4.45
sadrnet 2 | SPDT | Florence: Mean | 3.83
sadrnet 2 | SADRNet | AFLW2000-3D: 0 to 30 | 3.17
sadrnet 2 | SADRNet | AFLW2000-3D: 60 to 90 | ?
sadrnet 2 | SADRNet | AFLW2000-3D: Mean | 3.25
sadrnet 3 | QuatNet | AFLW2000-3D: yaw | 3.97
sadrnet 3 | MNN | AFLW2000-3D: pitch | 4.69
sadrnet 3 | SADRNet-fix | AFLW2000-3D: roll | 2.95
sadrnet 4 | Fig. 9 a | Rec.: 3D | 4.07
sadrnet 4 | Fig. 9 b | Applied: DF | yes
sadrnet 4 | Fig. 9 c (SADRNet-D) | Dense: 3D | 4.17
sadrnet 4 | Fig. 9 d | Sparse: 3D | 4.53
sadrnet 4 | Fig. 9 e | Applied: DF | no
sadrnet 5 | VRN | Size | 1.5GB
sadrnet 5 | CMD | Size | 93
2dasl 1 | 3DDFA + SDM | AFLW2000-3D: Mean | 5.42
2dasl 1 | 2DASL | AFLW2000-3D: 60 to 90 | 4.41
2dasl 1 | 2DASL | AFLW-LFPA: Mean | 2.85
2dasl 2 | 2DASL (base), without mask | Stage 2 | 4.00
2dasl 2 | 2DASL (sc), with mask | Stage 1 | 3.88
2dasl 2 | 2DASL (cyc+sc), without mask | Stage 2 | 3.71
2dasl 3 | 115,126 images | Stage 2 | 3.75
2dasl 3 | 175,534 images | Stage 1 | 3.85
2dasl fig6 | PRNet | all points: 3D | -
2dasl fig6 | 2DASL | 68 points: 2D | ?
2dasl fig7 | DeFA | Reconstruction | ?
mobile_frnet 1 | 3DDFA | AFLW, 21 points: Std | 0.990
mobile_frnet 1 | 3DDFA+SDM | AFLW2000-3D, 68 points: 60-90 | 7.170
mobile_frnet 1 | Mobile-FRNet | AFLW2000-3D, 68 points: Mean | ?
mobile_frnet 2 | ResNeXt50 | GFLOPs | 1.319
mobile_frnet 2 | Mobilenet_v2 | AFLW, 21 points: 30-60 | 5.581
mobile_frnet 2 | DenseNet121 | AFLW2000-3D, 68 points: 60-90 | 5.297
mobile_frnet 2 | Mobile-FRNet (no attention) | Params (M) | 2.40
mobile_frnet 2 | Mobile-FRNet | AFLW2000-3D, 68 points: Std | 0.751
"""

# The papers' own rows, whole.
OWN_ROWS = """
prn 1 | PRN | 2.75 3.51 4.61 3.62 2.93
sadrnet 1 | PRN | 2.75 3.51 4.61 3.62 3.26 4.70 3.17 4.40
sadrnet 1 | SADRNet | 2.66 3.30 4.42 3.46 3.05 4.33 2.93 4.02
sadrnet 2 | PRN | 3.72 4.04 4.45 3.96 3.75
sadrnet 2 | SADRNet | 3.17 ? ? 3.25 3.12
sadrnet 3 | SADRNet | 2.93 5.00 3.54 3.82
sadrnet 4 | Fig. 9 a | no no no 3.31 4.74 3.10 4.33 4.07
sadrnet 4 | Fig. 9 b | no no yes 3.43 4.94 3.21 4.50 3.37
sadrnet 4 | Fig. 9 c (SADRNet-D) | no yes yes 3.18 4.51 3.03 4.17 3.39
sadrnet 4 | Fig. 9 d | yes no no 3.16 4.53 3.03 4.21 4.02
sadrnet 4 | Fig. 9 e | yes yes no 3.24 4.59 3.14 4.31 3.49
sadrnet 4 | SADRNet | yes yes yes 3.05 4.33 2.93 4.02 3.25
2dasl 1 | 2DASL | 2.75 3.44 4.41 3.53 2.85
mobile_frnet 2 | Mobile-FRNet (no attention) | 2.40 0.110 4.371 5.199 6.031 5.201 0.678 \
2.962 3.856 4.991 3.936 0.830
mobile_frnet 2 | Mobile-FRNet | 2.60 0.120 4.199 4.862 5.668 4.910 0.601 \
2.930 3.799 4.768 3.832 0.751
"""

# What the papers print as the mean of bins although it is not, and what the bins give.
INCONSISTENT = {
    ("prn", "1", "SDM"): 6.093,
    ("sadrnet", "1", "SPDT"): 3.910,
    ("2dasl", "1", "SDM"): 6.093,
    ("2dasl", "1", "3DDFA + SDM"): 4.947,
    ("mobile_frnet", "1", "3DDFA"): 5.417,
    ("mobile_frnet", "1", "3DDFA+SDM"): 4.947,
    ("mobile_frnet", "1", "3DSTN"): 4.487,
}


def titles(table) -> list[str]:
    return [column.title for column in table.columns]


def row_of(table, method):
    (row,) = [row for row in table.rows if row.method.text == method]
    return row


def value(table, method, title) -> str:
    return row_of(table, method).cells[titles(table).index(title)].text


def filled(table, *paths) -> FilledTable:
    return fill(table, [read_report(path, DEFAULT) for path in paths], SHIPPED)


def our_cells(table: FilledTable, method: str) -> list[str]:
    (row,) = [row for row in table.rows if row.is_ours and row.method.text == method]
    return [cell.text for cell in row.cells]


def footnotes_of(table: FilledTable, method: str, title: str) -> list[Footnote]:
    (row,) = [row for row in table.rows if row.method.text == method]
    cell = row.cells[titles(table.published).index(title)]
    return [table.footnotes[mark] for mark in (*row.method.marks, *cell.marks)]


# The data.


def test_every_paper_is_there():
    figures = ["fig5", "fig7", "fig8", "fig9", "fig10"]
    assert list(TABLES) == [
        *(("2dasl", n) for n in ("1", "2", "3", "fig6", "fig7")),
        *(("mobile_frnet", n) for n in ("1", "2", "fig2", "fig3")),
        *(("prn", n) for n in ["1", "2", *figures]),
        *(("sadrnet", n) for n in "12345"),
    ]
    for paper, table in TABLES:
        assert (TABLES_DIR / f"{paper}_{table}.json").is_file()


@pytest.mark.parametrize("line", LITERALS.strip().splitlines())
def test_published_values(line):
    where, method, title, expected = line.split(" | ")
    assert value(TABLES[tuple(where.split())], method, title) == expected


@pytest.mark.parametrize("line", OWN_ROWS.strip().splitlines())
def test_own_rows(line):
    where, method, expected = line.split(" | ")
    cells = row_of(TABLES[tuple(where.split())], method).cells
    assert " ".join(cell.text for cell in cells) == expected


def test_means_are_those_of_the_bins():
    """Wherever a paper prints bins and their mean, but for the papers' own slips."""
    wrong, checked = {}, 0
    for (paper, name), table in TABLES.items():
        for index, column in enumerate(table.columns):
            if column.report is None or column.report.at != "mean_of_bins":
                continue
            keys = [column.report._replace(at=label) for label in BINS]
            places = [i for key in keys for i, c in enumerate(table.columns) if c.report == key]
            for row in table.rows:
                cells = row.cells or ()
                if len(places) < 3 or not cells or None in {cells[i].number for i in places}:
                    continue
                bins = [cells[i].number for i in places]
                if cells[index].number is None:
                    continue
                checked += 1
                decimals = len(cells[index].text.partition(".")[2])
                # Half of a last digit for the mean, and for the bins that were rounded before it.
                if abs(np.mean(bins) - cells[index].number) > 10**-decimals + 1e-9:
                    wrong[paper, name, row.method.text] = np.mean(bins)
    assert checked > 30
    assert wrong.keys() == INCONSISTENT.keys()
    assert wrong == pytest.approx(INCONSISTENT, abs=5e-4)
    for (paper, name, _), mean in INCONSISTENT.items():
        notes = " ".join(TABLES[paper, name].notes)
        assert re.search(rf"{mean:.2f}|{mean:.3f}|{mean:g}", notes), (paper, name, mean)


def test_deviations_of_bins():
    """Population in Mobile-FRNet's own table; the rows copied into Table 1 are the sample's."""
    for name, ddof in (("1", 1), ("2", 0)):
        table = TABLES["mobile_frnet", name]
        for group in ("AFLW, 21 points", "AFLW2000-3D, 68 points"):
            for row in table.rows:
                if row.cells is None:
                    continue
                at = {
                    c.name.text: row.cells[i]
                    for i, c in enumerate(table.columns)
                    if c.group == group
                }
                if at["Std"].number is not None:
                    bins = [at[label].number for label in BINS]
                    assert np.std(bins, ddof=ddof) == pytest.approx(at["Std"].number, abs=4e-3)
                    assert ("sample" in at["Std"].marks) == (ddof == 1)


def test_what_the_texts_say_of_the_tables():
    def at(paper, table, method, title):
        return float(value(TABLES[paper, table], method, title))

    for title, percent in (("45K points: 2D", 28.6), ("45K points: 3D", 27.2)):
        ours, other = (at("prn", "fig7", method, title) for method in ("PRN", "DeFA"))
        assert 100 * (1 - ours / other) == pytest.approx(percent, abs=0.05)
    ours, other = (at("prn", "fig8", method, "Florence") for method in ("PRN", "VRN-Guided"))
    assert 100 * (1 - ours / other) == pytest.approx(28.7, abs=0.05)
    weighted = sum(
        n * at("sadrnet", "1", "SADRNet", f"68 points, 2D: {label}")
        for n, label in ((1312, "0 to 30"), (383, "30 to 60"), (305, "60 to 90"))
    )
    assert round(weighted / 2000, 2) == at("sadrnet", "1", "SADRNet", "68 points, 2D: Mean")
    for parts, whole in (
        ("11.8 23.6", "DeFA"),
        ("29.1 25.6", "3D-FAN"),
        ("28.4 40.6", "VRN-Guided"),
    ):
        assert sum(map(float, parts.split())) == pytest.approx(at("prn", "2", whole, "Time"))


def test_papers_that_reprint_each_other_agree():
    """PRN's Table 1 in 2DASL's, but for one misprint; both in SADRNet's and Mobile-FRNet's."""
    prn, dasl = TABLES["prn", "1"], TABLES["2dasl", "1"]
    names = {"PRN": "PRNet"}
    different = [
        (row.method.text, title)
        for row in prn.rows
        for title, cell in zip(titles(prn), row.cells, strict=True)
        if value(dasl, names.get(row.method.text, row.method.text), title) != cell.text
    ]
    assert different == [("3DDFA + SDM", "AFLW2000-3D: Mean")]
    for method in ("3DDFA", "3DSTN", "PRN"):
        bins = [cell.text for cell in row_of(TABLES["sadrnet", "1"], method).cells[:4]]
        assert bins == [cell.text for cell in row_of(prn, method).cells[:4]]
    for method in ("3DDFA", "3DSTN"):
        long = row_of(TABLES["mobile_frnet", "1"], method).cells[5:9]
        assert [cell.number for cell in long] == [c.number for c in row_of(prn, method).cells[:4]]
    full, best = (
        row_of(TABLES["sadrnet", "4"], "SADRNet"),
        row_of(TABLES["sadrnet", "1"], "SADRNet"),
    )
    assert [c.text for c in full.cells[3:7]] == [c.text for c in best.cells[4:]]
    assert [c.text for c in row_of(TABLES["2dasl", "3"], "367,888 images").cells] == [
        "3.79",
        "3.53",
    ]


@pytest.mark.parametrize(
    ("paper", "table", "method", "title", "said"),
    [
        ("sadrnet", "5", "PRN", "Size", "optimiser's state"),
        ("sadrnet", "1", "SADRNet", "68 points, 2D: 60 to 90", "1,312/383/305"),
        ("sadrnet", "1", "SADRNet", "68 points, 2D: Balanced", "1,312/383/305"),
        ("sadrnet", "2", "SADRNet", "AFLW2000-3D: Mean", "Procrustes"),
        ("sadrnet", "3", "SADRNet-fix", "AFLW2000-3D: pitch", "chosen by the predictions"),
        ("2dasl", "1", "2DASL", "AFLW2000-3D: Mean", "20 worst images"),
        ("2dasl", "1", "2DASL", "AFLW2000-3D: 0 to 30", "Pose_Para"),
        ("2dasl", "1", "3DDFA + SDM", "AFLW2000-3D: Mean", "misprint"),
        ("mobile_frnet", "1", "3DDFA", "AFLW2000-3D, 68 points: Std", "divided by 2"),
        ("prn", "2", "3DSTN", "Time", "other hardware"),
        ("prn", "fig5", "PRN", "68 landmarks: 2D", "SADRNet's Table I"),
    ],
)
def test_numbers_that_do_not_compare_say_so(paper, table, method, title, said):
    whole = filled(TABLES[paper, table])
    notes = footnotes_of(whole, method, title)
    assert any(said in note.text for note in notes)
    if said not in ("20 worst images", "SADRNet's Table I"):
        assert not all(note.comparable for note in notes)
    assert all(note.text in to_markdown(whole) for note in notes)


@pytest.mark.parametrize(
    ("paper", "table", "title", "said"),
    [
        ("prn", "1", "AFLW2000-3D: Mean", "not of all images"),
        ("sadrnet", "1", "68 points, 2D: Balanced", "not comparable with a mean over all images"),
        ("2dasl", "1", "AFLW2000-3D: Mean", "not of all images"),
        ("mobile_frnet", "2", "AFLW, 21 points: Mean", "not of all images"),
        ("prn", "fig8", "AFLW2000-3D", "Procrustes"),
    ],
)
def test_columns_that_do_not_compare_say_so(paper, table, title, said):
    published = TABLES[paper, table]
    (column,) = [column for column in published.columns if column.title == title]
    assert any(said in published.footnotes[mark].text for mark in column.name.marks)


def test_experiments_of_our_rows():
    names = {name for table in TABLES.values() for name in table.runs}
    expected = "prn prn_weights_1110 prn_weights_1111 sadrnet 2dasl mobile_frnet resnext50 "
    expected += "mobile_frnet_no_attention mobilenet_v2 densenet121 resnet50"
    assert set(expected.split()) | {f"sadrnet_ablation_{x}" for x in "abcdef"} <= names
    listed = listing(list(TABLES.values()))
    assert "| prn | fig10 |" in listed
    assert "| 2dasl_77228 loss.stage=1, " in listed


# The schema.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.pop("notes"), "no 'notes'"),
        (lambda v: v.update(title=3), "title is 3, expected str"),
        (lambda v: v.update(colour="red"), "unknown colour"),
        (lambda v: v["columns"][0].update(better="larger"), r"columns\[0\]: better is 'larger'"),
        (lambda v: v["columns"][0]["report"].update(at="median"), "at is 'median'"),
        (lambda v: v["columns"][1].update(name="0 to 30"), "same group and name"),
        (lambda v: v["rows"][2]["values"].pop(), r"rows\[2\]: values .* expected 5 texts"),
        (lambda v: v["rows"][0].update(values=[1, 2, 3, 4, 5]), "expected 5 texts"),
        (lambda v: v["rows"][0].update(method="SDM [nobody]"), "nobody"),
        (lambda v: v["footnotes"].update(spare={"text": "x"}), "spare"),
        (lambda v: v["footnotes"]["bins"].update(colour="red"), "footnotes.bins: unknown colour"),
    ],
)
def test_a_table_file_of_another_schema_is_refused(tmp_path, change, said):
    values = json.loads((TABLES_DIR / "prn_1.json").read_text())
    change(values)
    path = tmp_path / "prn_1.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=said) as error:
        read_published(path)
    assert str(path) in str(error.value)


def test_marks():
    assert parse_marked("5.42 [misprint] [bins]") == Cell("5.42", ("misprint", "bins"))
    assert parse_marked("2DASL (cyc+sc)") == Cell("2DASL (cyc+sc)")
    assert [Cell(text).number for text in ("3.10", "1.5GB", "-", "?")] == [3.1, None, None, None]


def test_unknown_names_list_the_choices():
    with pytest.raises(
        ValueError, match="'vrn', expected one of 2dasl, mobile_frnet, prn, sadrnet"
    ):
        find_tables("vrn")
    with pytest.raises(ValueError, match="'9', sadrnet has 1, 2, 3, 4, 5"):
        find_tables("sadrnet", "9")
    assert [table.table for table in find_tables("2dasl")] == ["1", "2", "3", "fig6", "fig7"]


# Our rows.


def test_our_row_stands_below_the_published_one(tmp_path):
    whole = filled(TABLES["prn", "1"], made_report(tmp_path, "a.json"))
    methods = [row.method.text for row in whole.rows]
    assert methods[-2:] == ["PRN", "PRN, ours"]
    assert our_cells(whole, "PRN, ours") == ["1.11", "2.22", "3.33", "3.35", "-"]
    assert footnotes_of(whole, "PRN, ours", "AFLW2000-3D: Mean") == []
    remarks = " ".join(whole.remarks)
    assert "`python -m prnet.train +experiment=prn`" in remarks
    assert "checkpoint=outputs/prn/T/best.pt dataset=aflw2000 protocol=prn report=" in remarks
    assert re.search("no number for AFLW-LFPA: Mean .*dataset=aflw_lfpa", remarks)
    assert whole.published.rows is TABLES["prn", "1"].rows


def test_means_and_deviation_are_not_mixed_up(tmp_path):
    report = made_report(
        tmp_path, "a.json", protocol="sadrnet", source="checkpoint o/sadrnet/T/b.pt"
    )
    cells = our_cells(filled(TABLES["sadrnet", "1"], report), "SADRNet, ours")
    assert cells == ["1.11", "2.22", "3.33", "3.35", "3.00", "-", "-", "-"]
    report = made_report(
        tmp_path, "b.json", protocol="3ddfa", source="checkpoint o/resnext50/T/b.pt"
    )
    cells = our_cells(filled(TABLES["mobile_frnet", "2"], report), "ResNeXt50, ours")
    assert cells[7:] == ["1.111", "2.222", "3.333", "3.345", "0.500"]
    assert cells[:7] == ["-"] * 7


def test_another_protocol_is_named_and_does_not_compete(tmp_path):
    report = made_report(tmp_path, "a.json", protocol="default")
    whole = filled(TABLES["prn", "1"], report)
    (note,) = footnotes_of(whole, "PRN, ours", "AFLW2000-3D: 0 to 30")
    assert "under protocol default; the column needs prn" in note.text
    assert not note.comparable
    assert "**2.75**" in to_markdown(whole)
    assert "**1.11**" not in to_markdown(whole)


def test_a_changed_protocol_is_another(tmp_path):
    report = made_report(tmp_path, "a.json", changes={"z_alignment": "min", "bins": [30, 60]})
    assert SHIPPED.deviations(read_report(report, DEFAULT).protocol) == {"z_alignment": "min"}
    assert (
        SHIPPED.protocol_words(read_report(report, DEFAULT).protocol)
        == "prn protocol.z_alignment=min"
    )
    whole = filled(TABLES["prn", "1"], report)
    (note,) = footnotes_of(whole, "PRN, ours", "AFLW2000-3D: Mean")
    assert "prn protocol.z_alignment=min; the column needs prn" in note.text
    exact = made_report(tmp_path, "b.json", metrics={"nme_68_2d": {**SUMMARY, "mean_of_bins": 9.0}})
    whole = filled(TABLES["prn", "1"], report, exact)
    assert our_cells(whole, "PRN, ours")[3] == "9.00"
    crop = {**shipped_values("protocol", "prn")["crop"], "jitter": 0.1, "boxes": "b.csv"}
    assert SHIPPED.deviations({**shipped_values("protocol", "prn"), "crop": crop}) == {
        "crop.jitter": 0.1
    }


SUMMARY = {"mean": 1.0, "mean_of_bins": 1.0, "std_of_bins": 0.0, "bins": {}}


def test_a_row_can_need_a_protocol_of_its_own(tmp_path):
    """PRN's row in SADRNet's table is of PRN's protocol, and so is ours beside it."""
    paths = [
        made_report(
            tmp_path, f"{name}.json", protocol=name, metrics={"nme_68_2d": {**SUMMARY, "mean": x}}
        )
        for name, x in (("prn", 1.0), ("sadrnet", 2.0))
    ]
    whole = filled(TABLES["sadrnet", "1"], *paths)
    assert our_cells(whole, "PRN, ours")[4] == "1.00"
    assert footnotes_of(whole, "PRN, ours", "68 points, 2D: Mean") == []


def test_remarks_of_a_protocol_hold_for_our_numbers_under_it(tmp_path):
    """Bins by Pose_Para do not compete with bins by labels, whosever they are."""
    for source in ("checkpoint outputs/sadrnet/T/best.pt", "predictions DIR"):
        whole = filled(
            TABLES["sadrnet", "1"],
            made_report(tmp_path, "a.json", protocol="sadrnet", source=source),
        )
        (row,) = [row for row in whole.rows if row.is_ours]
        assert row.cells[0].marks == ("pose_para",)
        assert row.cells[4].marks == ()
        assert (whole.rows.index(row), 0) not in whole.best()
        assert (whole.rows.index(row), 4) in whole.best()


def test_fewer_images_are_counted(tmp_path):
    whole = filled(TABLES["prn", "1"], made_report(tmp_path, "a.json", count=253))
    (note,) = footnotes_of(whole, "PRN, ours", "AFLW2000-3D: 0 to 30")
    assert "253 of 2,000 images" in note.text
    assert not note.comparable


def test_reports_of_no_experiment_come_last_and_others_not_at_all(tmp_path):
    paths = [
        made_report(tmp_path, "a.json", source="predictions some/DIR"),
        made_report(tmp_path, "b.json", source="predictions none", metrics={}),
        made_report(tmp_path, "c.json", dataset="florence", source="predictions florence"),
    ]
    whole = filled(TABLES["prn", "1"], *paths)
    assert [row.method.text for row in whole.rows if row.is_ours] == ["ours: predictions some/DIR"]
    assert whole.rows[-1].is_ours
    for path in paths[1:]:
        assert f"Nothing for this table in {path}" in whole.remarks
    command = "predictions=some/DIR dataset=aflw2000 protocol=prn"
    assert any(command in remark for remark in whole.remarks)


def test_two_runs_of_one_experiment_have_a_row_each(tmp_path):
    sources = [f"checkpoint outputs/prn/{time}/best.pt" for time in ("T1", "T2")]
    paths = [made_report(tmp_path, f"{i}.json", source=s) for i, s in enumerate(sources)]
    ours = [row.method.text for row in filled(TABLES["prn", "1"], *paths).rows if row.is_ours]
    assert ours == [f"PRN, ours (checkpoint=outputs/prn/{time}/best.pt)" for time in ("T1", "T2")]


def test_two_numbers_for_one_place_are_refused(tmp_path):
    paths = [made_report(tmp_path, f"{name}.json") for name in "ab"]
    with pytest.raises(ValueError, match=r"a\.json and .*b\.json .* under protocol prn"):
        filled(TABLES["prn", "1"], *paths)


def test_stages_of_one_row_come_from_experiments_of_their_own(tmp_path):
    paths = [
        made_report(
            tmp_path,
            f"{name}.json",
            protocol="2dasl",
            experiment=name,
            source=f"checkpoint {name}.pt",
            metrics={"nme_68_2d": {**SUMMARY, "mean_of_bins": x}},
        )
        for name, x in (("2dasl_cyc_stage1", 4.0), ("2dasl_cyc", 3.0))
    ]
    whole = filled(TABLES["2dasl", "2"], *paths)
    assert our_cells(whole, "2DASL (cyc), with mask, ours") == ["4.00", "3.00"]
    assert sum(row.is_ours for row in whole.rows) == 1
    assert any(
        "`python -m prnet.train +experiment=2dasl_cyc loss.stage=1`" in r for r in whole.remarks
    )


def test_words_and_plain_numbers(tmp_path):
    """Ticks of an ablation are those of the published row; a metric may be a number alone."""
    report = made_report(
        tmp_path,
        "a.json",
        protocol="sadrnet",
        source="checkpoint outputs/sadrnet_ablation_c/T/best.pt",
    )
    cells = our_cells(filled(TABLES["sadrnet", "4"], report), "Fig. 9 c (SADRNet-D), ours")
    assert cells == ["no", "yes", "yes", "3.00", "-", "-", "-", "-"]
    report = made_report(tmp_path, "b.json", metrics={"latency_ms": 1.26})
    assert our_cells(filled(TABLES["prn", "2"], report), "PRN, ours") == ["1.3"]


def test_a_number_that_is_not_there_says_why(tmp_path):
    empty = {**SUMMARY, "bins": {"0-30": {"mean": None, "n": 0}}}
    report = made_report(
        tmp_path,
        "a.json",
        protocol="sadrnet",
        source="checkpoint outputs/sadrnet/T/best.pt",
        metrics={"nme_68_2d": empty},
        not_computed={"nme_68_3d": "the landmarks have no z"},
    )
    remarks = " ".join(filled(TABLES["sadrnet", "1"], report).remarks)
    bins = ("0 to 30", "30 to 60", "60 to 90", "Balanced")
    assert f"{'; '.join(f'68 points, 2D: {title}' for title in bins)} ({report} has" in remarks
    assert f"68 points, 3D: Mean ({report}: the landmarks have no z)" in remarks
    assert "45K points, 2D: Mean; 45K points, 3D: Mean (it would come from `python -m" in remarks


def test_experiments_without_a_report_are_named():
    """With what trains and scores each; what is of a network alone comes with any evaluation."""
    remarks = filled(TABLES["prn", "fig10"]).remarks
    assert (
        "No report of prn_weights_1110: `python -m prnet.train +experiment=prn_weights_1110`, then "
        "`python -m prnet.eval checkpoint=outputs/prn_weights_1110/TIME/best.pt dataset=aflw2000 "
        "protocol=prn report=FILE.json`" in remarks
    )
    (remark,) = [r for r in filled(TABLES["mobile_frnet", "2"]).remarks if " mobile_frnet: " in r]
    scored = re.findall("dataset=(\\S+ protocol=\\S+) report=", remark)
    assert scored == ["aflw protocol=aflw", "aflw2000 protocol=3ddfa"]
    (remark,) = filled(TABLES["prn", "2"]).remarks
    assert "checkpoint=outputs/prn/TIME/best.pt dataset=aflw2000 latency=true report=" in remark


# Reading reports.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.pop("metrics"), "no 'metrics'"),
        (lambda v: v.update(count="many"), "count is 'many', expected int"),
        (lambda v: v.update(protocol="prn"), "protocol is 'prn', expected dict"),
        (lambda v: v["protocol"].pop("name"), "protocol: no 'name'"),
        (lambda v: v["metrics"]["nme_68_2d"].pop("mean_of_bins"), "nme_68_2d: no 'mean_of_bins'"),
        (lambda v: v["metrics"]["nme_68_2d"].update(bins=[1]), r"bins is \[1\], expected dict"),
        (lambda v: v["metrics"]["nme_68_2d"]["bins"].update({"0-30": 3}), "bins.0-30: no 'mean'"),
        (lambda v: v["metrics"].update(nme_68_2d="3"), "metrics: nme_68_2d is '3'"),
    ],
)
def test_a_report_of_another_schema_is_refused(tmp_path, change, said):
    path = made_report(tmp_path, "a.json")
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=said) as error:
        read_report(path, DEFAULT)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [b'{"metrics": {', b"\xff\xfe\x00", b"[1, 2]", b""])
def test_a_damaged_report_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json: "):
        read_report(path, DEFAULT)


def test_patterns(tmp_path):
    for name in ("b", "a", "c"):
        made_report(tmp_path, f"{name}.json")
    found = find_reports([str(tmp_path / "[ab].json"), str(tmp_path / "*.json")], DEFAULT)
    assert [report.path.stem for report in found] == ["a", "b", "c"]
    (tmp_path / "run [1]").mkdir()
    made_report(tmp_path / "run [1]", "a [2].json")
    for pattern in ("a [2].json", "*.json"):  # a file of that name, a folder of that name
        assert len(find_reports([f"{tmp_path}/run [1]/{pattern}"], DEFAULT)) == 1
    with pytest.raises(FileNotFoundError, match=r"no file matches .*d\*\.json"):
        find_reports([str(tmp_path / "d*.json")], DEFAULT)


# Writing.


def small(better: str, texts: list[str], marks=((),) * 4) -> FilledTable:
    """One column, one row a text."""
    table = TABLES["prn", "2"]
    column = table.columns[0]._replace(better=better, name=Cell("x"))
    footnotes = {"no": Footnote("50 % & more_", comparable=False), "yes": Footnote("fine")}
    rows = [
        FilledRow(Cell(f"method {i}"), False, (Cell(text, tuple(own)),))
        for i, (text, own) in enumerate(zip(texts, marks, strict=False))
    ]
    return FilledTable(table._replace(columns=(column,)), tuple(rows), footnotes, ())


@pytest.mark.parametrize(
    ("better", "texts", "marks", "best"),
    [
        ("lower", ["3.0", "2.50", "-", "2.5"], [(), (), (), ()], {1, 3}),
        ("higher", ["3.0", "2.5", "?", "10"], [(), (), (), ()], {3}),
        ("lower", ["3.0", "2.5", "1.5GB", "4"], [(), ("no",), (), ("yes",)], {0}),
        ("lower", ["-", "2.5", "-", "-"], [(), (), (), ()], set()),
        (None, ["3.0", "2.5", "-", "1"], [(), (), (), ()], set()),
    ],
)
def test_best_of_a_column(better, texts, marks, best):
    table = small(better, texts, marks)
    assert table.best() == {(row, 0) for row in best}
    bold = {i for i, line in enumerate(to_markdown(table).splitlines()[4:8]) if "**" in line}
    assert bold == best
    assert to_latex(table).count(r"\textbf{") == len(best)


def test_best_of_the_published_numbers():
    """The papers' own bold, where all of a column can be compared."""
    markdown = to_markdown(filled(TABLES["prn", "1"]))
    (line,) = [line for line in markdown.splitlines() if line.startswith("| PRN |")]
    assert line == "| PRN | **2.75** | **3.51** | **4.61** | **3.62** | **2.93** |"
    assert markdown.count("**") == 10
    markdown = to_markdown(filled(TABLES["sadrnet", "3"]))
    assert "| SADRNet | **2.93** | 5.00 | 3.54 | **3.82** |" in markdown
    assert "| MNN | 3.34 | **4.69** | **3.48** | 3.83 |" in markdown


def test_latex_escapes():
    assert escape_latex("50 % of a_b & {c} #1 $x$ ~ ^ \\") == (
        r"50 \% of a\_b \& \{c\} \#1 \$x\$ \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    latex = to_latex(small("lower", ["3", "2"], [("no",), ()]))
    assert r"50 \% \& more\_" in latex


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: f"{table.paper}_{table.table}")
def test_every_table_can_be_written(table):
    whole = filled(table)
    latex, markdown = to_latex(whole), to_markdown(whole)
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")].splitlines()[1:]
    published = [row for row in table.rows if row.cells is not None]
    assert len(body) == len(published)
    assert {line.count(" & ") for line in body} == {len(table.columns)}
    code = [line for line in latex.splitlines() if not line.startswith("%")]
    assert not re.search(r"(?<!\\)[%#$]", "\n".join(code))
    assert latex.isascii()
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(table.columns) + 2}
    assert len(lines) == len(published) + 2
    for note in table.notes:
        assert note in markdown
    assert table.protocol in whole.caption()


def test_csv_round_trip(tmp_path):
    whole = filled(TABLES["sadrnet", "1"], made_report(tmp_path, "a.json", count=9))
    rows = list(csv.DictReader(io.StringIO(to_csv(whole))))
    names = titles(TABLES["sadrnet", "1"])
    assert [[row["method"], *(row[name] for name in names)] for row in rows] == [
        [row.method.text, *(cell.text for cell in row.cells)] for row in whole.rows
    ]
    ours = [row for row in rows if row["ours"] == "yes"]
    assert [row["method"] for row in ours] == ["PRN, ours"]
    assert ours[0]["footnotes"].startswith("68 points, 2D: 0 to 30; 68 points, 2D: 30 to 60; ")
    assert "Ours on 9 of 2,000 images" in ours[0]["footnotes"]


def test_files(tmp_path):
    whole = filled(TABLES["2dasl", "3"])
    written = write_table(whole, tmp_path / "new")
    assert [path.name for path in written] == ["2dasl_3.md", "2dasl_3.tex", "2dasl_3.csv"]
    assert [path.read_text() for path in written] == [
        to_markdown(whole),
        to_latex(whole),
        to_csv(whole),
    ]
