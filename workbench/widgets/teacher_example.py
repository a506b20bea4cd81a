"""Examples of the attention explorer from cross-modal teachers."""

from collections.abc import Mapping

import numpy as np

from workbench.models.dual_encoder import DualEncoder
from workbench.models.tokens import words
from workbench.targets.cross_modal import AnyTeacher, CrossModalInputs, look
from workbench.widgets.attention_example import AttentionExample


def teacher_example(
    teachers: Mapping[str, tuple[AnyTeacher, CrossModalInputs]], model: DualEncoder, caption: int
) -> AttentionExample:
    """What each of `teachers` makes of a caption (its number among all) and its picture.

    Every teacher comes with its inputs, which have the same pairs and regions. `model` has the tokenizer of
    the captions. The region weights are those of the first teacher that has some, and the pooling weights are
    the last teacher's. A map without heads is that of every head.
    """
    captions = np.array([caption])
    outputs = {name: look(teacher, inputs, captions) for name, (teacher, inputs) in teachers.items()}
    arrays = {name: inputs(captions) for name, (_, inputs) in teachers.items()}
    weights = {name: array["region_weights"] for name, array in arrays.items()}
    inputs = next(iter(teachers.values()))[1]
    regions = inputs.regions.rows(inputs.pairs.image_of_caption[captions])
    row = int(inputs.pairs.image_of_caption[caption])
    image = inputs.pairs.image(row)
    height, width = image.shape[1:]
    count = int(regions.mask[0].sum())
    weighed = next(
        (weight[0, :count].cpu().numpy() for weight in weights.values() if weight is not None), None
    )
    heads = max(output.token_to_region.shape[1] for output in outputs.values())
    last = list(outputs.values())[-1]
    return AttentionExample(
        image=image.numpy(),
        words=words(model, inputs.pairs.all_captions[caption]),
        boxes=regions.boxes[0, :count] * [width, height, width, height],
        region_weights=np.ones(count) if weighed is None else weighed,
        token_to_region={
            name: output.token_to_region[0].expand(heads, -1, -1).cpu().numpy()
            for name, output in outputs.items()
        },
        region_to_token={
            name: output.region_to_token[0].expand(heads, -1, -1).cpu().numpy()
            for name, output in outputs.items()
        },
        token_pooling=last.token_pooling[0].cpu().numpy(),
        region_pooling=last.region_pooling[0].cpu().numpy(),
        title=f"{inputs.pairs.id(row)}: {inputs.pairs.all_captions[caption]}",
        grid=inputs.regions.grid,
        unweighted=tuple(name for name, weight in weights.items() if weight is None),
    )
