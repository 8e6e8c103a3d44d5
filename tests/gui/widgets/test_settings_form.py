"""The form of settings: every model, every field once, with real typing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from qtpy.QtWidgets import QLineEdit, QMenu

from napari_pbip import config
from napari_pbip.config import (
    BackboneSettings,
    BankSettings,
    CamSettings,
    DataSettings,
    JobSettings,
    PbipSettings,
    Settings,
    ThresholdSettings,
    TrainSettings,
)
from napari_pbip.gui.widgets.field_editors import as_typed
from napari_pbip.gui.widgets.settings_form import SettingsForm, replaced

NEEDED: dict[str, dict[str, Any]] = {"PretrainSettings": {"images": ("slides", "more slides, scanned at night")}}
"""Values for what a model cannot be without."""
FILES = (config.CompareJob, config.CompareSettings)
"""Written as a file only: the choices of a comparison are whole settings."""
SHARED = (Settings, config.PyramidSettings, config.TrainedSettings)
"""What others derive from."""
MODELS = sorted(
    (
        m
        for m in vars(config).values()
        if isinstance(m, type) and issubclass(m, Settings) and m not in (*SHARED, *FILES)
    ),
    key=lambda model: model.__name__,
)


def made(model: type[Settings]) -> Settings:
    return model.model_validate(NEEDED.get(model.__name__, {}))


@pytest.fixture
def shown(application: Any, settle: Any) -> Any:
    """Show a form, and close it when the test ends."""
    forms = []

    def show(form: SettingsForm[Any]) -> SettingsForm[Any]:
        form.show()
        forms.append(form)
        settle(form.isVisible)
        return form

    yield show
    for form in forms:
        form.close()
        form.deleteLater()


def type_into(form: SettingsForm[Any], name: str, text: str, *, leave: bool = True) -> None:
    """Replace the text of a field, key by key."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    editor = form.editor(name)
    line = editor if hasattr(editor, "selectAll") else editor.findChild(QLineEdit)
    line.selectAll()
    QTest.keyClick(line, Qt.Key.Key_Delete)
    QTest.keyClicks(line, text)
    if leave:
        QTest.keyClick(line, Qt.Key.Key_Return)


def choose(form: SettingsForm[Any], name: str, text: str) -> None:
    """Choose an item of a list with the keyboard, by its text or by the value that has another title."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    box = form.editor(name)
    index = max(box.findText(text), box.findData(text))
    steps = index - box.currentIndex()
    for _ in range(abs(steps)):
        QTest.keyClick(box, Qt.Key.Key_Down if steps > 0 else Qt.Key.Key_Up)
    assert box.currentIndex() == index


def entered_anew(form: SettingsForm[Any]) -> Settings:
    """Return settings that are made only from the values of the fields."""
    value = made(type(form.value()))
    rows = [row for row in form.rows if row.belongs_to(form.value())]
    for row in sorted(rows, key=lambda row: (row.owner is not None, row.names[-1] != "preset")):
        form.editor(row.dotted)  # which makes it, if it was not seen
        value = replaced(value, row.names, row.editor.value)
    return value


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_model_has_a_form_that_says_all_of_it(shown: Any, model: type[Settings]) -> None:
    form = shown(SettingsForm(made(model)))
    assert form.value() == made(model)
    assert form.problems() == []
    assert entered_anew(form) == made(model)
    fields = {row.dotted for row in form.rows if row.belongs_to(form.value())}
    leaves = set(dotted(made(model).model_dump(), made(model)))
    assert fields | {"name"} == leaves | {"name"}  # a method's own name is chosen a level above
    rows = [row for row in form.rows if row.belongs_to(form.value())]
    assert all(row.label.toolTip() not in ("", "<qt></qt>") for row in rows)


def dotted(values: dict[str, Any], model: BaseModel, above: str = "") -> list[str]:
    names = []
    for name, value in values.items():
        inner = getattr(model, name)
        below = isinstance(inner, BaseModel)
        names += dotted(value, inner, f"{above}{name}.") if below else [above + name]
    return names


name = st.text("aZ1µ腫 -,:'\"{}[]#&*!|>%@", min_size=1, max_size=8).map(str.strip).filter(bool)
fraction = st.floats(0, 1, allow_subnormal=False)
weight = st.floats(0, 1e6, allow_subnormal=False)
stages = st.tuples(weight, weight, weight, weight)
k = st.integers(1, 99) | st.just("auto")
jobs = st.builds(
    JobSettings,
    data=st.builds(
        DataSettings,
        folder=st.none() | st.builds(Path, st.just("tiles"), name),
        layout=st.sampled_from(["auto", "csv"]),
        classes=st.none() | st.lists(name, min_size=1, max_size=4).map(tuple),
        mpp=st.none() | st.floats(1e-6, 1e3),
    ),
    bank=st.builds(BankSettings, k=k | st.dictionaries(name, k, min_size=1, max_size=4), encoder=name),
    method=st.builds(PbipSettings, preset=st.sampled_from(["paper", "released"]), delta=fraction, stage_weights=stages)
    | st.builds(CamSettings, fusion_weights=stages),
    train=st.builds(
        TrainSettings,
        steps=st.none() | st.integers(1, 10**9),
        learning_rate=st.floats(1e-12, 1),
        flip_and_turn=st.booleans(),
        device=name,
    ),
    thresholds=st.builds(ThresholdSettings, class_delta=st.dictionaries(name, fraction, max_size=4)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=jobs)
def test_what_is_shown_is_what_comes_back(application: Any, value: JobSettings) -> None:
    form = SettingsForm(JobSettings(), only=("data", "bank", "method", "train", "thresholds"))
    form.set_value(value)
    assert form.value() == value
    assert entered_anew(form) == value
    form.deleteLater()


def test_typing_changes_the_settings_and_says_so(shown: Any) -> None:
    form = shown(SettingsForm(TrainSettings()))
    seen: list[TrainSettings] = []
    form.value_changed.connect(seen.append)
    type_into(form, "learning_rate", "3e-4")
    type_into(form, "steps", "12")
    choose(form, "precision", "float32")
    type_into(form, "device", "cuda:1")
    assert form.value() == TrainSettings(learning_rate=3e-4, steps=12, precision="float32", device="cuda:1")
    assert seen[-1] == form.value()
    type_into(form, "steps", "")
    assert form.value().steps is None
    assert form.value().model_fields_set == {"learning_rate", "steps", "precision", "device"}


@pytest.mark.parametrize(
    ("model", "field", "text", "sentence"),
    [
        (TrainSettings, "epochs", "many", "valid integer or 'auto'; auto is kept."),
        (TrainSettings, "epochs", "0", "greater than or equal to 1 or 'auto'; auto is kept."),
        (TrainSettings, "epochs", "2.5", "valid integer or 'auto'; auto is kept."),
        (TrainSettings, "epochs", "", "valid integer or 'auto'; auto is kept."),
        (TrainSettings, "learning_rate", "-1", "greater than 0 or 'auto'; auto is kept."),
        (TrainSettings, "stain_augmentation", "nan", "; 0.2 is kept."),
        (TrainSettings, "steps", "-3", "greater than or equal to 1; it stays empty."),
        (PbipSettings, "delta", "1.5", "less than or equal to 1; 0.15 is kept."),
        (PbipSettings, "stage_weights", "1, 2", "too few values; 0.0, 0.1, 1.0, 1.0 is kept."),
        (PbipSettings, "stage_weights", "1, 2, 3, 4, 5", "4 items"),
        (PbipSettings, "stage_weights", "1, x, 3, 4", "valid number; 0.0, 0.1"),
        (PbipSettings, "stage_weights", "1, [", "cannot be read; 0.0, 0.1"),
        (BankSettings, "k", "some", "'auto' or pairs of a class and its value; 3 is kept."),
        (BankSettings, "k", "TUM: 0", "; 3 is kept."),
        (BankSettings, "k", "TUM: {", "; 3 is kept."),
        (ThresholdSettings, "class_delta", "TUM", "; it stays empty."),
    ],
)
def test_wrong_input_is_one_sentence_at_the_field(
    shown: Any, model: type[Settings], field: str, text: str, sentence: str
) -> None:
    form = shown(SettingsForm(model()))
    notice = form.problem(field)
    assert not notice.isVisible()
    type_into(form, field, text)
    assert notice.isVisible()
    assert sentence in notice.text()
    assert notice.text().rstrip(".").count(". ") == 0
    assert "\n" not in notice.text()
    assert form.value() == model()
    assert form.problems() == [field]
    type_into(form, field, as_typed(getattr(model(), field)))
    assert not notice.isVisible()
    assert form.problems() == []


def test_a_preset_fills_the_fields_and_can_be_changed_on(shown: Any) -> None:
    form = shown(SettingsForm(PbipSettings(delta=0.9)))
    choose(form, "preset", "paper")
    assert form.value() == PbipSettings(preset="paper")
    assert form.editor("temperature").text() == "1.0"
    assert form.editor("stage_weights").text() == "1.0, 1.0, 1.0, 0.0"
    assert form.editor("contrast").currentText() == "equations"
    type_into(form, "beta", "0.25")
    assert form.value() == PbipSettings(preset="paper", beta=0.25)
    choose(form, "preset", "released")
    assert form.value() == PbipSettings(preset="released")
    assert form.editor("similarity").currentText() == "released"
    choose(form, "preset", "default")
    assert form.value() == PbipSettings()


def test_choosing_a_method_shows_its_own_fields(shown: Any) -> None:
    form = shown(SettingsForm(JobSettings(), only=("method",)))
    delta = form.editor("method.delta")
    assert delta.isVisible()
    type_into(form, "method.delta", "2", leave=False)
    assert form.problems() == ["method.delta"]
    choose(form, "method.name", "cam")
    assert form.value().method == CamSettings()
    assert not delta.isVisible()
    assert form.problems() == []
    type_into(form, "method.stage_weights", "1, 1, 1, 1")
    assert form.value().method == CamSettings(stage_weights=(1, 1, 1, 1))
    choose(form, "method.name", "pbip")
    assert form.value().method == PbipSettings()
    assert delta.isVisible()
    assert delta.text() == "0.15"


def test_the_few_that_matter_stand_on_top_and_the_others_in_a_panel(shown: Any) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    form = shown(SettingsForm(JobSettings(), only=("method", "train"), main=("method.name", "train.epochs")))
    assert form.editor("train.epochs").isVisible()
    assert not form.editor("train.batch_size").isVisible()
    form.others_button.setFocus()
    QTest.keyClick(form.others_button, Qt.Key.Key_Space)
    assert form.editor("train.batch_size").isVisible()
    assert form.editor("method.delta").isVisible()
    with pytest.raises(StopIteration):
        form.editor("thresholds.delta")


def test_a_field_of_several_methods_stands_on_top_for_each(shown: Any, application: Any) -> None:
    form = shown(SettingsForm(JobSettings(), only=("method",), main=("method.name", "method.preset")))
    for method in ("construct", "lpd", "pbip"):
        choose(form, "method.name", method)
        preset = form.editor("method.preset")
        assert preset.isVisible()
        assert preset.window() is form
        choose(form, "method.preset", "released")
        assert form.value().method.preset == "released"
    assert [w for w in application.topLevelWidgets() if w.isVisible()] == [form]


def test_a_remark_stands_at_its_field_until_it_is_taken_back(shown: Any) -> None:
    form = shown(SettingsForm(JobSettings(), only=("backbone", "train")))
    notice = form.problem("train.epochs")
    form.remark({"train.epochs": "Auto is little."})
    assert notice.isVisible()
    assert "Auto is little." in notice.text()
    assert form.problems() == []
    type_into(form, "train.epochs", "none")
    assert "auto is kept" in notice.text()
    form.remark({"train.epochs": "Auto is little."})
    assert "auto is kept" in notice.text()  # what is wrong comes first
    type_into(form, "train.epochs", "9")
    assert "Auto is little." in notice.text()
    form.remark({})
    assert not notice.isVisible()


def test_settings_from_elsewhere_are_shown_and_typing_is_not_disturbed(shown: Any) -> None:
    form = shown(SettingsForm(JobSettings(), only=("train",)))
    seen: list[JobSettings] = []
    form.value_changed.connect(seen.append)
    type_into(form, "train.learning_rate", "1e-", leave=False)
    form.set_value(JobSettings(thresholds=ThresholdSettings(delta=0.4)))  # another widget's section
    assert form.editor("train.learning_rate").text() == "1e-"
    type_into(form, "train.learning_rate", "1e-3")
    assert form.value() == JobSettings(train=TrainSettings(learning_rate=1e-3), thresholds=ThresholdSettings(delta=0.4))
    told = len(seen)
    form.set_value(JobSettings(train=TrainSettings(epochs=3)))
    assert form.editor("train.epochs").text() == "3"
    assert form.editor("train.learning_rate").text() == "auto"
    assert len(seen) == told  # the user changed nothing


def test_names_can_be_offered_and_others_typed(shown: Any) -> None:
    form = shown(SettingsForm(JobSettings(), only=("backbone",)))
    form.offer("backbone.name", ("mit-b0", "mit-b1"))
    assert form.value() == JobSettings()
    choose(form, "backbone.name", "mit-b1")
    assert form.value().backbone.name == "mit-b1"
    type_into(form, "backbone.name", "my-own")
    assert form.value().backbone.name == "my-own"
    box = form.editor("backbone.name")
    form.offer("backbone.name", {"mit-b0": "small", "mit-b1": ""})
    assert [box.itemText(i) for i in range(box.count())] == ["mit-b0", "mit-b1"]
    assert form.value().backbone.name == box.currentText() == "my-own"
    box.showPopup()
    assert painted(box.view(), 0) == "mit-b0  –  small"
    assert painted(box.view(), 1) == "mit-b1"
    box.hidePopup()


def painted(view: Any, row: int) -> str:
    """Return the text that a line of a list shows."""
    from qtpy.QtWidgets import QStyleOptionViewItem

    option, index = QStyleOptionViewItem(), view.model().index(row, 0)
    view.itemDelegate().initStyleOption(option, index)
    return option.text


def test_a_folder_is_chosen_in_a_dialog_that_does_not_stop_the_window(shown: Any, settle: Any, tmp_path: Path) -> None:
    from qtpy.QtWidgets import QDialogButtonBox, QFileDialog, QPushButton

    form = shown(SettingsForm(DataSettings()))
    form.editor("folder").findChild(QPushButton).menu().actions()[0].trigger()
    dialog = form.findChild(QFileDialog)
    settle(dialog.isVisible)
    dialog.findChild(QLineEdit).setText(str(tmp_path))
    dialog.findChild(QDialogButtonBox).buttons()[0].click()
    settle(lambda: form.value().folder == tmp_path)
    type_into(form, "folder", "")
    assert form.value().folder is None


def test_the_wheel_changes_no_setting(shown: Any, application: Any) -> None:
    from qtpy.QtCore import QPoint, QPointF, Qt
    from qtpy.QtGui import QWheelEvent

    form = shown(SettingsForm(TrainSettings()))
    box = form.editor("precision")
    event = QWheelEvent(
        QPointF(5, 5),
        QPointF(5, 5),
        QPoint(0, -120),
        QPoint(0, -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    application.sendEvent(box, event)
    assert form.value() == TrainSettings()


def test_looking_at_a_field_is_no_choice(shown: Any) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    form = shown(SettingsForm(BankSettings()))
    for row in form.rows:
        QTest.keyClick(row.editor.native, Qt.Key.Key_Tab)
    assert form.problems() == []
    assert form.value().model_fields_set == set()


def test_a_file_may_be_a_word_too(shown: Any) -> None:
    form = shown(SettingsForm(BackboneSettings()))
    editor = form.editor("weights")
    assert editor.findChild(QLineEdit).text() == "builtin"
    type_into(form, "weights", "")
    assert form.value().weights is None
    menu = editor.findChild(QMenu)
    assert [action.text() for action in menu.actions()] == ["Builtin", "Choose a folder…", "Choose a file…"]
    menu.actions()[0].trigger()
    assert form.value().weights == "builtin"
    type_into(form, "weights", "/weights/mit")
    assert form.value().weights == Path("/weights/mit")


def test_weights_follow_the_backbone_until_they_are_chosen(shown: Any) -> None:
    form = shown(SettingsForm(BackboneSettings()))
    type_into(form, "name", "resnet50")
    assert (form.value().weights, form.editor("weights").findChild(QLineEdit).text()) == (None, "")
    type_into(form, "name", "efficientnet-lite0")
    assert form.value().weights == "builtin"
