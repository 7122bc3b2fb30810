"""Weights of one network for another: what fits is loaded, what does not is told, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from torso.config import ModelError
from torso.nn.transfer import Report, load_weights

State = dict[str, Tensor]


def net(classes: int = 5, width: int = 6) -> nn.Sequential:
    """A body of two layers with norms, and a classifier called ``fc``."""
    body = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, width, 3))
    whole = nn.Sequential()
    whole.add_module("body", body)
    whole.add_module("fc", nn.Linear(width, classes))
    return whole


def copied(model: nn.Module) -> State:
    return {name: x.clone() for name, x in model.state_dict().items()}


def check_loaded(model: nn.Module, before: State, expected: State, report: Report) -> None:
    """What the report says is what happened: loaded tensors are those of the file, all others as they were."""
    loaded = set(report.names("loaded"))
    assert loaded == set(expected)
    for name, x in model.state_dict().items():
        assert torch.equal(x, expected[name] if name in loaded else before[name]), name


BODY = [name for name in net().state_dict() if name.startswith("body.")]
FC = ["fc.weight", "fc.bias"]


@pytest.mark.part("transfer/report", "transfer/match_shapes")
def test_a_classifier_of_other_classes_keeps_the_body_and_begins_anew_at_the_end() -> None:
    """80 classes in the file, 3 here."""
    file, model = copied(net(80)), net(3)
    file["extra.weight"] = torch.ones(2)
    before = copied(model)
    report = load_weights(model, file)
    check_loaded(model, before, {name: file[name] for name in BODY}, report)
    assert report.names("re-initialised") == FC
    assert report.names("unexpected") == ["extra.weight"]
    assert report.names("missing") == []
    learned = [name for name in model.state_dict() if "num_batches" not in name]
    assert report.share == pytest.approx((len(learned) - 2) / len(learned))
    assert report.table(limit=2).splitlines() == [
        "11 tensors: 9 loaded, 2 re-initialised, 1 unexpected",
        "loaded          body.0.weight  [6, 3, 3, 3]",
        "loaded          body.0.bias    [6]",
        "loaded          and 7 more",
        "re-initialised  fc.weight      [3, 6] here, [80, 6] in the file",
        "re-initialised  fc.bias        [3] here, [80] in the file",
        "unexpected      extra.weight   [2]",
    ]
    assert report.to_dict()["re-initialised"] == FC


@pytest.mark.part("transfer/report")
def test_the_report_is_torchs_where_torch_has_one() -> None:
    """``load_state_dict(strict=False)`` names missing and unexpected ones, and fails on shapes."""
    file = copied(net())
    del file["body.2.bias"]
    file["other"] = torch.zeros(1)
    theirs, ours = net(), net()
    known = theirs.load_state_dict(file, strict=False)
    report = load_weights(ours, file)
    assert report.names("missing") == known.missing_keys == ["body.2.bias"]
    assert report.names("unexpected") == known.unexpected_keys == ["other"]
    kept = {name: x for name, x in theirs.state_dict().items() if name != "body.2.bias"}
    assert all(torch.equal(ours.state_dict()[name], x) for name, x in kept.items())
    with pytest.raises(RuntimeError, match="size mismatch"):
        theirs.load_state_dict(copied(net(3)), strict=False)


@pytest.mark.part("transfer/match_shapes")
def test_equal_numbers_of_elements_are_not_equal_shapes() -> None:
    """The trap: by ``numel`` a matrix for 6 of 4 would be taken for one for 4 of 6, and every number lands wrong."""
    here, there = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6)), nn.Sequential(nn.Linear(6, 4), nn.Linear(6, 6))
    file = {**copied(there), "0.bias": torch.ones(6)}
    assert here[0].weight.numel() == file["0.weight"].numel()
    before = copied(here)
    for match in ("name", "shape"):
        report = load_weights(here, file, match=match, minimum=0.0)  # type: ignore[arg-type]
        assert "0.weight" not in report.names("loaded")
        assert torch.equal(here.state_dict()["0.weight"], before["0.weight"])
    # Nor is a kernel taken for a matrix, unless a dialect says that they are the same layer.
    kernel = {"weight": torch.zeros(4, 3, 2, 2), "bias": torch.zeros(4)}
    assert load_weights(nn.Linear(12, 4), kernel).names("re-initialised") == ["weight"]


@pytest.mark.part("transfer/report")
def test_a_renamed_body_is_an_error_not_random_weights() -> None:
    words = {"body.0": "encoder.stem.conv", "body.1": "encoder.stem.norm", "body.2": "encoder.top.conv", "fc": "fc"}
    file = {words[name.rpartition(".")[0]] + "." + name.rpartition(".")[2]: x for name, x in copied(net()).items()}
    del file["fc.weight"]
    model = net()
    before = copied(model)
    with pytest.raises(ModelError) as caught:
        load_weights(model, file)
    message = str(caught.value)
    for part in ("only 10% of the tensors", "50% are needed", "missing are 9: body.0.weight", "encoder.stem.conv"):
        assert part in message
    assert "\n" not in message
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items()), "and nothing was touched"
    assert load_weights(model, file, minimum=0.1).names("loaded") == ["fc.bias"]


@pytest.mark.part("transfer/report")
def test_the_least_share_is_exact() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    half = {name: x for name, x in copied(model).items() if name.startswith("0.")}
    assert load_weights(model, half).share == 0.5
    with pytest.raises(ModelError, match=r"only 50% .* 51% are needed"):
        load_weights(model, half, minimum=0.51)
    for minimum in (-0.1, 1.1):
        with pytest.raises(ValueError, match="minimum is a share"):
            load_weights(model, half, minimum=minimum)
    with pytest.raises(ValueError, match="match is name or shape"):
        load_weights(model, half, match="numel")  # type: ignore[arg-type]


@pytest.mark.part("transfer/drop_keys")
def test_dropped_keys_begin_anew() -> None:
    file, model = copied(net()), net()
    before = copied(model)
    report = load_weights(model, file, drop=("fc.*",))
    check_loaded(model, before, {name: file[name] for name in BODY}, report)
    assert report.names("re-initialised") == FC
    assert report.table().splitlines()[-1].split() == ["re-initialised", "fc.bias", "[5]", "dropped"]
    assert load_weights(net(), file, drop=("*.bias", "body.1.*"), minimum=1.0).names("loaded") == [
        "body.0.weight",
        "body.2.weight",
        "fc.weight",
    ]
    with pytest.raises(ModelError, match=r"no tensor in a state dict is called 'fcc\.\*', which was to be left out"):
        load_weights(model, file, drop=("fcc.*",))


@pytest.mark.part("transfer/match_shapes")
def test_a_renamed_network_is_loaded_in_order_as_long_as_kinds_and_shapes_agree() -> None:
    whole = copied(net(7))
    file = {f"layer{place}.{name.rpartition('.')[2]}": x for place, (name, x) in enumerate(whole.items())}
    model = net(3)
    before = copied(model)
    report = load_weights(model, file, match="shape")
    learned = [name for name in BODY if "num_batches" not in name]
    check_loaded(model, before, {name: whole[name] for name in learned}, report)
    assert report.names("missing") == FC
    # A bias is not a weight, and a mean is no variance, though their shapes agree.
    swapped = {name.replace("running_mean", "running_var_of"): x for name, x in file.items()}
    with pytest.raises(ModelError, match="only 40%"):
        load_weights(net(3), swapped, match="shape")
    without = load_weights(net(3), file, match="shape", drop=("layer0.weight", "layer1.bias"), minimum=0.0)
    assert without.names("loaded") == []


@pytest.mark.part("transfer/graft_backbone")
@pytest.mark.parametrize("around", ["", "module.", "model.", "backbone.", "module.backbone.body."])
@pytest.mark.parametrize("inside", ["", "net.", "backbone.body."])
def test_wrappers_on_either_side_are_found(around: str, inside: str) -> None:
    whole = copied(net())
    file = {around + name: x for name, x in whole.items()} | {"neck.weight": torch.ones(2), "epoch": torch.ones(1)}
    inner = net()
    model: nn.Module = inner
    for word in reversed(inside.split(".")[:-1]):
        outer = nn.Sequential()
        outer.add_module(word, model)
        model = outer
    report = load_weights(model, file)
    assert report.share == 1
    assert report.names("unexpected") == ["neck.weight", "epoch"]
    assert all(torch.equal(x, whole[name]) for name, x in inner.state_dict().items())


@pytest.mark.part("transfer/graft_backbone")
def test_a_prefix_that_is_given_is_the_only_one() -> None:
    one, two = copied(net()), copied(net())
    file = {**{f"student.{n}": x for n, x in one.items()}, **{f"teacher.{n}": x for n, x in two.items()}}
    model = net()
    report = load_weights(model, file, prefix="teacher.")
    assert all(torch.equal(x, two[name]) for name, x in model.state_dict().items())
    assert len(report.names("unexpected")) == len(one)
    with pytest.raises(ModelError, match="only 0%"):
        load_weights(model, file, prefix="")
    with pytest.raises(ModelError, match=r"the file holds two such networks, student\.\* and teacher\.\*: say which"):
        load_weights(model, file)
    both = nn.ModuleDict({"student": net(), "teacher": net()})
    with pytest.raises(ModelError, match=r"the module holds two such networks, student\.\* and teacher\.\*: say which"):
        load_weights(both, one)
    assert load_weights(both, file).share == 1
    # A network beside a wrapped copy of it (a mean of its weights) is the network.
    assert load_weights(model, {**one, **{f"ema.{n}": x for n, x in two.items()}}).share == 1
    assert all(torch.equal(x, one[name]) for name, x in model.state_dict().items())


@pytest.mark.part("transfer/graft_backbone")
def test_children_joined_by_underscores_are_the_same_children() -> None:
    whole = copied(net())
    file = {name.replace("body.", "body_"): x for name, x in whole.items()}
    model = net()
    assert load_weights(model, file).share == 1
    # But where that would make two names one, names count as they are.
    both = nn.ModuleDict({"a_b": nn.Linear(2, 2), "a": nn.ModuleDict({"b": nn.Linear(2, 2)})})
    other = {name: torch.full_like(x, place) for place, (name, x) in enumerate(both.state_dict().items())}
    assert load_weights(both, other).share == 1
    assert all(torch.equal(x, other[name]) for name, x in both.state_dict().items())


@pytest.mark.part("transfer/report")
def test_names_can_be_changed_on_the_way() -> None:
    whole = copied(net())
    file = {name.replace("body.", "old.stem.").replace("fc.", "last."): x for name, x in whole.items()}
    model = net()
    report = load_weights(model, file, rename={"old.": "unused.", "old.stem.": "body.", "last.": "fc."})
    assert report.share == 1
    assert all(torch.equal(x, whole[name]) for name, x in model.state_dict().items())
    with pytest.raises(ModelError, match=r"begins with 'stem'.*it holds old"):
        load_weights(model, file, rename={"stem": "body."})
    with pytest.raises(ModelError, match=r"old\.stem\.0\.weight and last\.weight are both called x\.weight"):
        load_weights(model, file, rename={"old.stem.0.": "x.", "last.": "x."})


@pytest.mark.part("transfer/report")
def test_counters_of_old_norms_are_not_missed() -> None:
    file = {name: x for name, x in copied(net()).items() if "num_batches" not in name}
    report = load_weights(net(), file)
    assert report.share == 1
    assert report.names("missing") == []


@pytest.mark.part("transfer/report")
def test_values_that_are_not_finite_are_refused() -> None:
    file, model = copied(net()), net()
    before = copied(model)
    file["body.2.weight"][1, 2, 0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"values in body\.2\.weight that are not finite"):
        load_weights(model, file)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    file["fc.bias"] += float("inf")  # what is not taken does not count
    assert load_weights(model, file, drop=("body.2.weight", "fc.*")).share == 1


@pytest.mark.part("transfer/weights")
@pytest.mark.parametrize("how", ["weights.pth", "weights.safetensors", "run/model.safetensors", "wrapped.pt"])
def test_a_file_or_a_finished_run(how: str, tmp_path: Path) -> None:
    whole = copied(net())
    path = tmp_path / how
    path.parent.mkdir(exist_ok=True)
    if how.endswith("safetensors"):
        save_file(whole, path)
    else:
        torch.save({"state_dict": whole, "epoch": 3} if how == "wrapped.pt" else whole, path)
    model = net().half() if how == "weights.pth" else net()
    source = path.parent if how.startswith("run") else path
    report = load_weights(model, str(source))
    assert (report.source, report.share) == (str(source), 1)
    assert all(torch.equal(x, whole[name].to(x.dtype)) for name, x in model.state_dict().items())


@pytest.mark.part("transfer/weights")
def test_damaged_files_and_programs_are_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, (str(tmp_path / "ran"), "w")

    torch.save({**copied(net()), "trap": Trap()}, tmp_path / "evil.pt")
    save_file(copied(net()), tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:500])
    (tmp_path / "run").mkdir()
    for name, words in {
        "evil.pt": "holds more than weights: loading it would run",
        "cut.safetensors": "damaged or incomplete",
        "none.pt": "No such file",
        "run": "a folder without model.safetensors: give a run that is done",
    }.items():
        with pytest.raises(ModelError, match=words):
            load_weights(net(), tmp_path / name)
    assert not (tmp_path / "ran").exists()
