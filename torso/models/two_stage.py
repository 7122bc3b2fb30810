"""A detector of two stages or more: what is proposed is looked at again, region by region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from torso.assigners.draw import Draw, Drawn, with_objects
from torso.boxes.candidates import candidates
from torso.boxes.coders import Coder
from torso.boxes.convert import area, clip
from torso.heads.region import RoIOutput
from torso.models.detector import precise
from torso.models.inside import Keep, go_on
from torso.nn.normalize import normalizer
from torso.structures import Batch, DenseOutput, Detections, Features, Losses, Targets


class TwoStageOutput(NamedTuple):
    """What the dense head says, if there is one, and what each stage says about its regions."""

    proposed: DenseOutput | None
    stages: tuple[DenseOutput, ...]  # priors [B, R, 4] are the regions; deltas [B, R, boxes * D]


class Stage(nn.Module):
    """One look at regions.

    Args:
        roi: features of a region at one size.
        head: these to logits and deltas; has ``num_boxes``, 1 or one for each class.
        coder: regions and deltas to boxes.
        criterion: its objective, for regions as priors (``of_regions``).
        draw: which regions learn; all of them when None.

    Raises:
        ValueError: a criterion that asks for more than classes and boxes.
    """

    def __init__(self, roi: nn.Module, head: nn.Module, coder: Coder, criterion: nn.Module, draw: Draw | None = None):
        super().__init__()
        if asked := list(getattr(criterion, "branches", ())):
            raise ValueError(
                f"a head of regions says classes and boxes, but the criterion asks for the {asked[0]}, too"
            )
        self.roi, self.head, self.criterion, self.draw = roi, cast("Any", head), criterion, draw
        self.coder = coder
        self.background: bool = getattr(criterion, "background", False)

    def forward(self, features: Features, boxes: Tensor, valid: Tensor, size: tuple[int, int]) -> DenseOutput:
        """What the head says about the regions ``[B, R, 4]``."""
        output: RoIOutput = self.head(self.roi(self.head.maps(features), boxes))
        logits, deltas = precise(output.logits), precise(output.deltas)
        count = boxes.shape[1]
        strides = boxes.new_ones(count, 2)
        said = DenseOutput(logits, deltas, boxes, boxes, (count,), {}, strides, size, self.background, valid)
        best = self.boxes_of(said)  # [B, R, boxes, 4]
        if best.shape[2] == 1:
            return said._replace(boxes=best.squeeze(2))
        likely = said.class_scores().argmax(dim=-1)[..., None, None].expand(-1, -1, -1, 4)
        return said._replace(boxes=best.gather(2, likely).squeeze(2))

    def losses(self, output: DenseOutput, targets: Targets, drawn: Drawn | None = None) -> Losses:
        """The named losses; regions learn what they were drawn for: among fewer an assigner might say otherwise."""
        losses: Losses = self.criterion(output, targets, None if drawn is None else drawn.assignment())
        return losses

    def boxes_of(self, output: DenseOutput) -> Tensor:
        """The decoded boxes ``[B, R, 1 or C, 4]`` of what the head said."""
        batch, count = output.deltas.shape[:2]
        deltas = output.deltas.reshape(batch, count, -1, self.coder.size)
        regions = output.priors.unsqueeze(2).expand(-1, -1, deltas.shape[2], -1)
        boxes: Tensor = self.coder.decode(deltas.flatten(1, 2), regions.flatten(1, 2))
        return boxes.reshape(batch, count, -1, 4)


class TwoStage(nn.Module):
    """Proposals, and one stage or more that say what they are and where their objects really lie.

    The boxes of a stage are the regions of the next (Cascade R-CNN); a score is the mean over the stages.

    Args:
        backbone: pictures to features.
        neck: features to features.
        propose: features to regions.
        stages: looks at regions, one after the other.
        suppress: candidates to detections.
        mask: regions to masks, see `torso.models.masks`; none when None.
        num_classes: classes C.
        threshold: score below which a region is no candidate of a class, 0..1.
        topk: pairs of region and class that the suppressor sees.
        normalize: pixels to what the backbone expects; by the backbone's own mean and deviation when None.

    Raises:
        ValueError: a stage that is not the last has a box for each class: the next has one region for each; a
            suppressor that wants more than boxes, scores and classes.

    Source: Faster R-CNN, 2015, arXiv:1506.01497; Cascade R-CNN, 2017, arXiv:1712.00726; Mask R-CNN, 2017,
        arXiv:1703.06870
    """

    task: ClassVar[str] = "detect"
    takes_proposals: ClassVar[bool] = True

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        propose: nn.Module,
        stages: Sequence[Stage],
        suppress: nn.Module,
        mask: nn.Module | None = None,
        *,
        num_classes: int,
        threshold: float = 0.05,
        topk: int = 1000,
        normalize: nn.Module | None = None,
    ):
        super().__init__()
        if any(stage.head.num_boxes != 1 for stage in stages[:-1]):
            raise ValueError("a stage before another says one box a region: class_boxes=false")
        if wanted := list(getattr(suppress, "extra", ())):
            raise ValueError(f"{type(suppress).__name__} wants the {wanted[0]} of every box, which no region has")
        self.num_classes, self.threshold, self.topk = num_classes, threshold, topk
        self.stride: int = max(backbone.strides)  # type: ignore[arg-type]
        self.normalize = normalizer(normalize, backbone)
        self.backbone, self.neck, self.propose = backbone, neck, cast("Any", propose)
        self.stages, self.suppress, self.mask = nn.ModuleList(stages), suppress, mask
        self.background = stages[-1].background
        self.masks = mask is not None
        self.inside: tuple[str, ...] = (*self.propose.inside, "region_scores", "region_boxes")

    @property
    def each(self) -> list[Stage]:
        """The stages, in order."""
        return cast("list[Stage]", list(self.stages))

    @property
    def head(self) -> nn.ModuleList:
        """The heads that know classes."""
        return nn.ModuleList([stage.head for stage in self.each])

    @property
    def criterion(self) -> nn.ModuleList:
        """The objectives that know classes, the branch of masks among them: it knows no background."""
        return nn.ModuleList([*(stage.criterion for stage in self.each), *([] if self.mask is None else [self.mask])])

    def features(self, images: Tensor) -> Features:
        """Pictures ``[B, 3, H, W]`` in 0..255 to features."""
        found: Features = self.neck(self.backbone(self.normalize(images)))
        return found

    def forward(self, images: Tensor) -> TwoStageOutput:
        """Pictures ``[B, 3, H, W]`` in 0..255 to what all stages say about what is proposed."""
        return self._look(self.features(images), (images.shape[-2], images.shape[-1]), go_on)

    def _look(
        self, features: Features, size: tuple[int, int], keep: Keep, given: Tensor | None = None
    ) -> TwoStageOutput:
        proposed, boxes, valid = self._regions(features, size, keep, given)
        said = []
        for stage in self.each:
            said.append(stage(features, boxes, valid, size))
            boxes = clip(said[-1].boxes.detach(), *size)
        return TwoStageOutput(proposed, tuple(said))

    def _regions(
        self, features: Features, size: tuple[int, int], keep: Keep, given: Tensor | None
    ) -> tuple[DenseOutput | None, Tensor, Tensor]:
        """What the proposer says, if it is asked, and the regions ``[B, R, 4]`` with which are no padding."""
        if given is not None:
            return None, given.to(torch.promote_types(given.dtype, features[0].dtype)), area(given) > 0
        proposed = self.propose(features, size)
        return proposed, *self.propose.choose(proposed, features, size, keep)

    def losses(self, batch: Batch) -> Losses:
        """The named losses of a batch: ``proposal_*``, those of the first stage, ``stage2_*`` and so on, ``mask``.

        Where proposals are given, the proposer is not asked, and has no losses.
        """
        features, targets = self.features(batch.images), batch.targets.with_a_row()
        size = (batch.images.shape[-2], batch.images.shape[-1])
        proposed, boxes, valid = self._regions(features, size, go_on, batch.proposals)
        losses: Losses = {}
        if batch.proposals is None:
            losses = {f"proposal_{name}": x for name, x in self.propose.losses(proposed, targets).items()}
        boxes, valid = with_objects(boxes, valid, targets)
        for number, stage in enumerate(self.each, start=1):
            drawn: Drawn | None = None if stage.draw is None else stage.draw(boxes, valid, targets, size)
            if drawn is not None:
                boxes, valid = drawn.boxes, drawn.valid
            said = stage(features, boxes, valid, size)
            prefix = "" if number == 1 else f"stage{number}_"
            losses |= {prefix + name: x for name, x in stage.losses(said, targets, drawn).items()}
            if self.mask is not None and number == 1:
                losses |= self.mask.losses(features, drawn, targets)  # type: ignore[operator]
            boxes = clip(said.boxes.detach(), *size)
        return losses

    def predict(self, images: Tensor, proposals: Tensor | None = None) -> Detections:
        """The objects in pictures ``[B, 3, H, W]``, boxes in pixels of these pictures.

        Looked at are ``proposals [B, R, 4]`` where they are given: pixels; rows without area are padding.
        """
        return self.answer(images, go_on, proposals)

    def answer(self, images: Tensor, keep: Keep, proposals: Tensor | None = None) -> Detections:
        """`predict`, with the numbers of `inside` passed through ``keep``."""
        features, size = self.features(images), (images.shape[-2], images.shape[-1])
        said = self._look(features, size, keep, proposals).stages
        every = [output.class_scores() for output in said]
        scores = every[0] if len(every) == 1 else torch.stack(every).mean(dim=0)
        boxes = clip(self.each[-1].boxes_of(said[-1]), *size)
        found = self.choose(keep("region_scores", scores), keep("region_boxes", boxes), said[-1].valid)
        if self.mask is None:
            return found
        return found._replace(masks=self.mask(features, found.boxes, found.labels))

    def choose(self, scores: Tensor, boxes: Tensor, valid: Tensor | None) -> Detections:
        """The answer among scores ``[B, R, C]`` and boxes ``[B, R, 1 or C, 4]`` of regions that are ``valid``."""
        if valid is not None:
            scores = torch.where(valid.unsqueeze(-1), scores, 0.0)
        if boxes.shape[2] == 1:
            chosen = candidates(scores, boxes.squeeze(2), [boxes.shape[1]], threshold=self.threshold, topk=self.topk)
        else:  # a pair of region and class has a box of its own; its class follows the four numbers
            count, classes = boxes.shape[1], boxes.shape[2]
            label = torch.arange(classes, device=boxes.device, dtype=boxes.dtype).repeat(count)
            pairs = torch.cat(
                [boxes.flatten(1, 2), label.expand(boxes.shape[0], -1).unsqueeze(-1)], dim=-1
            )  # [B, R * C, 5]
            pairs, best, _ = candidates(
                scores.reshape(scores.shape[0], -1, 1), pairs, [count * classes], self.threshold, self.topk
            )
            chosen = pairs[..., :4], best, pairs[..., 4].long()
        found: Detections = self.suppress(*chosen)
        return found
