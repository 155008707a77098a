"""Label spaces against the real vocabulary and small ones with known answers."""

import csv
import random

import pytest

from pipeline.base.errors import DataError
from pipeline.data.labels import VERTICALS, LabelSpace, Vocabulary, youtube8m_space
from pipeline.prepare import audioset
from tests.data.worlds import COLUMNS, UNKNOWN, vocabulary_rows, write_csv


@pytest.fixture(scope="module")
def real(real_data):
    return Vocabulary.read(real_data("yt8m/vocabulary.csv"), 3862)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return Vocabulary.read(write_csv(tmp_path_factory.mktemp("v") / "vocabulary.csv", vocabulary_rows()), 3862)


@pytest.mark.parametrize(("name", "size", "entities"), [("h317", 317, 293), ("h431", 431, 407)])
def test_sizes_and_choice(real, real_data, name, size, entities):
    space = youtube8m_space(name, real)
    assert len(space.classes) == len(space.groups) == len(set(space.classes)) == size
    assert space.classes[:24] == VERTICALS
    assert "(Unknown)" not in space.classes + space.group_names
    assert "surrogate" in space.note
    with open(real_data("yt8m/vocabulary.csv"), newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (-int(row["TrainVideoCount"]), int(row["Index"])))
    kept = {entity for entity, classes in enumerate(space.entity_classes) if any(index >= 24 for index in classes)}
    assert len(kept) == entities
    for vertical in VERTICALS:
        members = [int(row["Index"]) for row in rows if vertical in [row[f"Vertical{i}"] for i in (1, 2, 3)]]
        assert members[0] in kept, vertical  # the largest of each vertical
        assert len(space.members(vertical)) >= 2
    missing = [int(row["Index"]) for row in rows[:entities] if int(row["Index"]) not in kept]
    added = kept - {int(row["Index"]) for row in rows[:entities]}
    assert len(missing) == len(added)
    assert set(missing) == {int(row["Index"]) for row in rows[entities - len(missing) : entities]}  # the least frequent


def test_real_video_is_food(real, real_data):
    from pipeline.records.tfrecord import YT8M_MODALITIES, read_videos

    [video] = read_videos(real_data("yt8m/frame_level_one_video.tfrecord"), YT8M_MODALITIES)
    space = youtube8m_space("h317", real)
    assert {space.classes[index] for index in space.map(video.labels)} == {"Food", "Food & Drink"}


@pytest.mark.parametrize("name", ["h317", "h431"])
def test_closed_upward(real, name):
    """The verticals of a video can be read off its classes alone, and agree with those of its entities."""
    space = youtube8m_space(name, real)
    draw = random.Random(0)
    for _ in range(500):
        entities = draw.sample(range(3862), 3)
        classes = space.map(entities)
        expected = {vertical for entity in entities for vertical in real[entity].verticals}
        assert {space.classes[index] for index in classes if index < 24} == expected
        for vertical in VERTICALS:
            assert bool(set(classes) & set(space.members(vertical))) == (vertical in expected)


def test_unknown_vertical_alone_has_no_class(small):
    space = youtube8m_space("h317", small)
    assert space.map([UNKNOWN]) == ()
    assert space.map([UNKNOWN, 3860]) == (3860 % 24,)
    assert space.map([3, 3]) == (3, 24 + 3)


def test_identity_space(small):
    space = youtube8m_space("k3862", small)
    assert len(space) == 3862
    assert space.map([9, 2, 9]) == (2, 9)
    assert space.members("Finance")[0] == VERTICALS.index("Finance")


def test_smaller_vocabulary_keeps_every_entity(tmp_path):
    vocabulary = Vocabulary.read(write_csv(tmp_path / "v.csv", vocabulary_rows()[:48]), 48)
    assert len(youtube8m_space("h317", vocabulary)) == 24 + 48
    assert len(youtube8m_space("k3862", vocabulary)) == 48


def test_rows_in_any_order(tmp_path, small):
    rows = vocabulary_rows()
    random.Random(1).shuffle(rows)
    shuffled = Vocabulary.read(write_csv(tmp_path / "v.csv", rows), 3862)
    assert shuffled == small
    assert youtube8m_space("h431", shuffled) == youtube8m_space("h431", small)


def test_empty_names_are_told_apart(real):
    unnamed = [entity.name for entity in real if entity.name.startswith("entity ")]
    assert len(unnamed) == len(set(unnamed)) == 56


def test_outside_label(small):
    for label in (-1, 3862):
        with pytest.raises(DataError, match=rf"shard: record 3: label {label} is outside the vocabulary of 3862"):
            youtube8m_space("h317", small).map([1, label], where="shard: record 3")


def test_save_and_load(tmp_path, small):
    space = youtube8m_space("h317", small)
    space.save(tmp_path / "space.json")
    assert LabelSpace.load(tmp_path / "space.json") == space
    (tmp_path / "space.json").write_text("{}")
    with pytest.raises(DataError, match=r"space\.json: no label space"):
        LabelSpace.load(tmp_path / "space.json")


def bad(change):
    rows = vocabulary_rows()
    change(rows)
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (vocabulary_rows()[:1000], r"1000 entities, expected 3862; .*segments"),
        (vocabulary_rows()[:-1], r"3861 entities, expected 3862"),
        (bad(lambda rows: rows[5].__setitem__(0, "6")), r"Index 6 is given twice"),
        (bad(lambda rows: rows[5].__setitem__(0, "9999")), r"Index 5 is missing"),
        (bad(lambda rows: rows[5].__setitem__(1, "many")), r"TrainVideoCount 'many' is no whole number"),
    ],
)
def test_bad_vocabulary(tmp_path, rows, message):
    with pytest.raises(DataError, match=rf"v\.csv: {message}"):
        Vocabulary.read(write_csv(tmp_path / "v.csv", rows), 3862)


def test_missing_column_and_file(tmp_path):
    path = write_csv(tmp_path / "v.csv", vocabulary_rows(), (*COLUMNS[:5], "Vertical 2", "Vertical3"))
    with pytest.raises(DataError, match=r"no column Vertical2; get vocabulary\.csv from https"):
        Vocabulary.read(path, 3862)
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        Vocabulary.read(tmp_path / "none.csv", 3862)


def test_misspelt_vertical(tmp_path):
    rows = bad(lambda rows: rows[0].__setitem__(4, "Game"))
    with pytest.raises(DataError, match=r"unknown vertical 'Game'; did you mean Games\?"):
        youtube8m_space("h317", Vocabulary.read(write_csv(tmp_path / "v.csv", rows), 3862))


def test_audioset_families(real_data):
    space = audioset.read_classes(real_data("audioset/class_labels_indices.csv"))
    assert len(space) == 527
    assert space.members("Music") == tuple(range(137, 283))
    assert space.members("Speech") == tuple(range(8))
    assert space.map([300, 0]) == (0, 300)
    with pytest.raises(DataError, match=r"has no group 'Finance'; it has Music, Speech"):
        space.members("Finance")
