from __future__ import annotations

import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ops.inputs import FLOATS, assert_agrees, in_double, make_fused_inputs, make_inputs, on
from torch import Tensor, nn

from seqformer.ops import implementation, is_compiled, ms_deform_attn, ms_deform_attn_fused
from seqformer.ops.reference import (
    level_sizes,
    ms_deform_attn_fused_reference,
    ms_deform_attn_reference,
    sampling_locations,
)

compiled = pytest.mark.skipif(not is_compiled, reason="the operator is not compiled")
LEVELS = [(6, 4), (3, 2)]


def readable(value, shapes, starts, locations, weights) -> Tensor:
    """Equation 3 of Deformable DETR, one sample at a time."""
    n, _, m, d = value.shape
    q, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    out = torch.zeros(n, q, m, d, dtype=value.dtype)
    for i, j, head, level, point in (
        (i, j, h, level, p)
        for i in range(n)
        for j in range(q)
        for h in range(m)
        for level in range(levels)
        for p in range(points)
    ):
        height, width = shapes[level].tolist()
        x = locations[i, j, head, level, point, 0].item() * width - 0.5
        y = locations[i, j, head, level, point, 1].item() * height - 0.5
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                    cell = value[i, starts[level] + row * width + column, head]
                    out[i, j, head] += weights[i, j, head, level, point] * share * cell
    return out.flatten(2)


@pytest.mark.parametrize("function", [ms_deform_attn, ms_deform_attn_reference])
@pytest.mark.parametrize("shapes", [[(5, 7)], LEVELS, [(1, 1), (4, 1), (1, 3)]])
def test_agrees_with_one_sample_at_a_time(
    device: torch.device, function, shapes: list[tuple[int, int]]
) -> None:
    inputs = make_inputs(shapes)
    torch.testing.assert_close(function(*on(device, inputs)).cpu(), readable(*inputs))


sizes = st.integers(1, 6)


@st.composite
def problems(draw: st.DrawFn) -> dict:
    """Draws keyword arguments of ``make_inputs``; half precision has locations of its dtype or float32."""
    problem = {
        "shapes": draw(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=4)),
        "images": draw(st.integers(1, 3)),
        "queries": draw(st.integers(1, 9)),
        "heads": draw(st.integers(1, 3)),
        "channels": draw(st.integers(1, 70)),
        "points": draw(st.integers(1, 5)),
        "dtype": draw(st.sampled_from(FLOATS)),
    }
    if problem["dtype"].itemsize == 2 and draw(st.booleans()):
        problem["location_dtype"] = torch.float32
    return problem


FORMS = {
    "located": (ms_deform_attn, ms_deform_attn_reference, make_inputs),
    "points": (ms_deform_attn_fused, ms_deform_attn_fused_reference, partial(make_fused_inputs, size=2)),
    "boxes": (ms_deform_attn_fused, ms_deform_attn_fused_reference, partial(make_fused_inputs, size=4)),
}
forms = st.sampled_from(sorted(FORMS))
seeds = st.integers(0, 2**20)


@given(problem=problems(), form=forms, seed=seeds)
def test_agrees_with_the_reference_on_any_problem(
    device: torch.device, problem: dict, form: str, seed: int
) -> None:
    torch.manual_seed(seed)
    function, reference, make = FORMS[form]
    inputs = make(**problem)
    right = reference(*in_double(inputs))
    inputs = on(device, inputs)
    for output in (function(*inputs), reference(*inputs)):
        assert output.dtype == problem["dtype"]
        assert_agrees(output, right)


def gradients(function, inputs: tuple[Tensor, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Returns gradients of a weighted sum (in ``dtype``) of the output for all floating-point inputs."""
    inputs = tuple(t.clone().requires_grad_() if t.is_floating_point() else t for t in inputs)
    output = function(*inputs)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)
    output.backward(weights.to(dtype).to(output.device, output.dtype))
    return [t.grad for t in inputs if t.is_floating_point()]


@given(problem=problems(), form=forms, seed=seeds)
def test_gradients_agree_with_the_reference_on_any_problem(
    device: torch.device, problem: dict, form: str, seed: int
) -> None:
    torch.manual_seed(seed)
    function, reference, make = FORMS[form]
    inputs = make(**problem)
    right = gradients(reference, in_double(inputs), problem["dtype"])
    inputs = on(device, inputs)
    arguments = [t for t in inputs if t.is_floating_point()]
    for actual in (gradients(f, inputs, problem["dtype"]) for f in (function, reference)):
        for gradient, expected, argument in zip(actual, right, arguments, strict=True):
            assert gradient.dtype == argument.dtype
            assert_agrees(gradient, expected)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fused_gradients_are_those_of_the_sampled_cells(
    device: torch.device, dtype: torch.dtype, size: int
) -> None:
    """Locations rounded to half precision could be between other cells, where the gradient differs."""
    value, shapes, starts, reference, offsets, logits = make_fused_inputs(
        [(30, 40)], size, queries=200, dtype=dtype
    )
    offsets = (6 * torch.rand(offsets.shape) - 3).to(dtype)
    inputs = value, shapes, starts, reference, offsets, logits
    exact = in_double(inputs)
    locations = sampling_locations(exact[3], exact[4], shapes)
    sizes = level_sizes(shapes, locations.shape[4], torch.float64)
    cells, rounded = (at * sizes - 0.5 for at in (locations, locations.to(dtype).double()))
    clear = (cells - cells.round()).abs() > 1e-3
    assert (clear & (cells.floor() != rounded.floor())).sum() > 5
    actual = gradients(ms_deform_attn_fused, on(device, inputs), dtype)
    expected = gradients(ms_deform_attn_fused_reference, exact, dtype)
    assert_agrees(actual[2].cpu()[clear], expected[2][clear])


def nondeterminism(device: torch.device) -> float:
    """How much two runs of the backward pass may differ: GPUs add gradients in any order."""
    return 0.0 if device.type == "cpu" else 1e-10


def test_gradients_agree_with_finite_differences(device: torch.device) -> None:
    value, shapes, starts, locations, weights = on(device, make_inputs([(4, 3), (2, 2)]))
    tensors = [t.requires_grad_() for t in (value, locations, weights)]
    assert torch.autograd.gradcheck(
        lambda v, at, w: ms_deform_attn(v, shapes, starts, at, w),
        tensors,
        atol=1e-6,
        nondet_tol=nondeterminism(device),
    )


@pytest.mark.parametrize("size", [2, 4])
def test_gradients_of_the_fused_form_agree_with_finite_differences(device: torch.device, size: int) -> None:
    inputs = on(device, make_fused_inputs([(4, 3), (2, 2)], size, queries=2))
    value, shapes, starts, reference, offsets, logits = inputs
    tensors = [t.requires_grad_() for t in (value, reference, offsets, logits)]
    assert torch.autograd.gradcheck(
        lambda v, r, o, w: ms_deform_attn_fused(v, shapes, starts, r, o, w),
        tensors,
        atol=1e-6,
        nondet_tol=nondeterminism(device),
    )


@pytest.mark.parametrize("size", [2, 4])
def test_gradients_without_one_for_the_reference(device: torch.device, size: int) -> None:
    inputs = on(device, make_fused_inputs([(4, 3), (2, 2)], size, queries=2))
    value, reference, offsets, logits = gradients(ms_deform_attn_fused, inputs)
    inputs = [t.clone().requires_grad_(t.is_floating_point() and i != 3) for i, t in enumerate(inputs)]
    assert inputs[3].shape == reference.shape and not inputs[3].requires_grad
    output = ms_deform_attn_fused(*inputs)
    output.backward(torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output).to(device))
    for argument, expected in zip((inputs[0], *inputs[4:]), (value, offsets, logits), strict=True):
        torch.testing.assert_close(argument.grad, expected)


def test_far_outside_is_zero() -> None:
    value, shapes, starts, locations, weights = make_inputs([(4, 3)])
    assert (ms_deform_attn(value, shapes, starts, locations + 5, weights) == 0).all()


@compiled
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("place", [math.nan, math.inf, -math.inf, 1e30, -6e4])
def test_absurd_locations_are_zero(device: torch.device, dtype: torch.dtype, place: float) -> None:
    value, shapes, starts, locations, weights = on(device, make_inputs(LEVELS, dtype=dtype))
    first = (torch.arange(2, device=device) == 0).to(dtype)
    usual = ms_deform_attn(value, shapes, starts, locations, weights * first)
    locations = locations.clone()
    locations[..., 1, 0] = place
    locations.requires_grad_()
    output = ms_deform_attn(value, shapes, starts, locations, weights)
    torch.testing.assert_close(output, usual)
    output.sum().backward()
    assert (locations.grad[..., 1, :] == 0).all()


@compiled
@pytest.mark.parametrize(
    "empty", [{"images": 0}, {"queries": 0}, {"points": 0}, {"channels": 0}, {"heads": 0}, {"shapes": []}]
)
def test_empty_inputs(device: torch.device, empty: dict) -> None:
    inputs = on(device, make_inputs(**{"shapes": LEVELS, **empty}))
    n, q, m = inputs[4].shape[:3]
    output = ms_deform_attn(*inputs)
    assert output.shape == (n, q, m * inputs[0].shape[3])
    assert (output == 0).all()
    assert all((g == 0).all() for g in gradients(ms_deform_attn, inputs))
    fused = on(device, make_fused_inputs(size=2, **{"shapes": LEVELS, **empty}))
    assert (ms_deform_attn_fused(*fused) == 0).all()
    assert all((g == 0).all() for g in gradients(ms_deform_attn_fused, fused))


def test_non_contiguous_inputs() -> None:
    inputs = make_inputs([(5, 7), (2, 3)], channels=32)
    views = []
    for t in inputs:
        if t.is_floating_point():
            view = t.transpose(0, 1).contiguous().transpose(0, 1)
            assert not view.is_contiguous()
            views.append(view)
        else:
            views.append(t)
    assert torch.equal(ms_deform_attn(*views), ms_deform_attn(*inputs))
    for actual, expected in zip(
        gradients(ms_deform_attn, tuple(views)), gradients(ms_deform_attn, inputs), strict=True
    ):
        assert torch.equal(actual, expected)


@compiled
@pytest.mark.parametrize("size", [None, 2, 4])
def test_opcheck(device: torch.device, size: int | None) -> None:
    if size is None:
        op, inputs = torch.ops.seqformer.ms_deform_attn.default, make_inputs(LEVELS)
    else:
        op, inputs = torch.ops.seqformer.ms_deform_attn_fused.default, make_fused_inputs(LEVELS, size)
    inputs = on(device, inputs)
    torch.library.opcheck(op, inputs)
    torch.library.opcheck(op, tuple(t.requires_grad_() if t.is_floating_point() else t for t in inputs))


@compiled
def test_opcheck_of_backward() -> None:
    inputs = make_inputs(LEVELS, dtype=torch.float32)
    grad_output = torch.randn_like(ms_deform_attn(*inputs))
    torch.library.opcheck(torch.ops.seqformer.ms_deform_attn_backward.default, (grad_output, *inputs))


class Attention(nn.Module):
    """A module that uses both forms."""

    def forward(self, value, shapes, starts, reference, offsets, logits):
        fused = ms_deform_attn_fused(value, shapes, starts, reference, offsets, logits)
        return fused + ms_deform_attn(value, shapes, starts, offsets.sigmoid(), logits.softmax(-1))


@compiled
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(backend: str) -> None:
    inputs = make_fused_inputs(LEVELS, 4, dtype=torch.float32)
    module = torch.compile(Attention(), fullgraph=True, backend=backend)
    torch.testing.assert_close(module(*inputs), Attention()(*inputs))
    for actual, expected in zip(gradients(module, inputs), gradients(Attention(), inputs), strict=True):
        torch.testing.assert_close(actual, expected)


@compiled
def test_exports_with_any_number_of_queries() -> None:
    inputs = make_fused_inputs(LEVELS, 2)
    queries = torch.export.Dim("queries")
    dynamic = [None, None, None, {1: queries}, {1: queries}, {1: queries}]
    program = torch.export.export(Attention(), inputs, dynamic_shapes=dynamic)
    more = make_fused_inputs(LEVELS, 2, queries=11)
    torch.testing.assert_close(program.module()(*more), Attention()(*more))


@compiled
def test_autocast_keeps_locations_in_float32(device: torch.device) -> None:
    inputs = on(device, make_inputs(LEVELS, dtype=torch.float32))
    fused_inputs = on(device, make_fused_inputs(LEVELS, 2, dtype=torch.float32))
    with torch.autocast(device.type, torch.bfloat16):
        output = ms_deform_attn(*inputs)
        fused = ms_deform_attn_fused(*fused_inputs)
    assert output.dtype == fused.dtype == torch.bfloat16
    assert torch.equal(output, ms_deform_attn(inputs[0].bfloat16(), *inputs[1:]))


@compiled
def test_results_do_not_depend_on_threads() -> None:
    inputs = make_inputs([(20, 30), (10, 15)], queries=700, channels=32, dtype=torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append([ms_deform_attn(*inputs), *gradients(ms_deform_attn, inputs)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def replaced(index: int, change) -> tuple[Tensor, ...]:
    inputs = list(make_inputs(LEVELS))
    inputs[index] = change(inputs[index])
    return tuple(inputs)


@compiled
@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (0, lambda t: t.long(), "value must be float32"),
        (0, lambda t: t[0], r"value must be \(N, S, M, D\)"),
        (0, lambda t: t[:, 1:], "spatial_shapes has more cells than value, which has 29"),
        (0, lambda t: torch.cat((t, t), 1), "spatial_shapes has 30 cells in total, but value has 60"),
        (1, lambda t: t.int(), "spatial_shapes must be int64"),
        (1, lambda t: t.flatten(), r"spatial_shapes must be \(L, 2\)"),
        (1, lambda t: -t, "spatial_shapes: level 0 is -6x-4"),
        (1, lambda t: t * 2**40, "spatial_shapes: level 0 is"),
        (2, lambda t: t + 1, "level_start_index: level 0 starts at 1, not at 0"),
        (2, lambda t: t[:1], r"level_start_index must be \(L,\)"),
        (2, lambda t: t.double(), "level_start_index must be int64"),
        (3, lambda t: t.float(), "sampling_locations must be Double like value, not Float"),
        (3, lambda t: t[..., 0], r"sampling_locations must be \(N, Q, M, L, P, 2\)"),
        (3, lambda t: t[:1], r"sampling_locations must be \(N, Q, M, L, P, 2\) with N = 2"),
        (4, lambda t: t[:, :3], r"attention_weights must be \(N, Q, M, L, P\) = \[2, 4, 2, 2, 2\]"),
    ],
)
def test_bad_arguments_are_named(index: int, change, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        torch.ops.seqformer.ms_deform_attn(*replaced(index, change))


@compiled
def test_bad_arguments_of_the_other_operators_are_named() -> None:
    inputs = make_inputs(LEVELS)
    with pytest.raises(RuntimeError, match=r"grad_output must be \(N, Q, M \* D\) = \(2, 4, 6\)"):
        torch.ops.seqformer.ms_deform_attn_backward(torch.zeros(2, 4, 5, dtype=torch.float64), *inputs)
    value, shapes, starts, reference, offsets, logits = make_fused_inputs(LEVELS, 2)
    with pytest.raises(RuntimeError, match=r"reference must be \(N, Q, L, 2\) points"):
        ms_deform_attn_fused(value, shapes, starts, reference[..., :1], offsets, logits)
    with pytest.raises(RuntimeError, match=r"logits must be \(N, Q, M, L, P\)"):
        ms_deform_attn_fused(value, shapes, starts, reference, offsets, logits.flatten(3))


WITHOUT_THE_COMPILED = """
import sys
sys.modules["seqformer._C"] = None
import torch
from ops.inputs import make_fused_inputs, make_inputs
from seqformer.ops import implementation, ms_deform_attn, ms_deform_attn_fused
print(implementation())
torch.manual_seed(0)
inputs, fused = make_inputs([(6, 4), (3, 2)]), make_fused_inputs([(6, 4), (3, 2)], 4)
inputs[0].requires_grad_()
ms_deform_attn(*inputs).sum().backward()
outputs = ms_deform_attn(*inputs), inputs[0].grad, fused, ms_deform_attn_fused(*fused)
torch.save([inputs, *outputs], sys.argv[1])
"""


def test_works_without_the_compiled_operator(repository, tmp_path) -> None:
    code = f"import sys; sys.path.insert(0, {str(repository / 'tests')!r})\n{WITHOUT_THE_COMPILED}"
    process = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "results.pt"], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("deformable attention runs in plain PyTorch") == 1
    assert process.stdout == "plain PyTorch (the compiled operator was not built)\n"
    inputs, output, grad, fused, fused_output = torch.load(tmp_path / "results.pt")
    torch.testing.assert_close(output, ms_deform_attn(*inputs))
    value = inputs[0].detach().requires_grad_()
    ms_deform_attn(value, *inputs[1:]).sum().backward()
    torch.testing.assert_close(grad, value.grad)
    torch.testing.assert_close(fused_output, ms_deform_attn_fused(*fused))


@pytest.mark.cuda
@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("channels", [4, 8, 32, 37, 128, 256])
def test_cuda_agrees_with_the_reference(channels: int, dtype: torch.dtype, form: str) -> None:
    function, reference, make = FORMS[form]
    inputs = make([(20, 30), (10, 15)], queries=77, channels=channels, dtype=dtype)
    on_device = tuple(t.cuda() for t in inputs)
    assert_agrees(function(*on_device).cpu(), reference(*in_double(inputs)))
    actual = gradients(function, on_device, dtype)
    for a, b in zip(actual, gradients(reference, in_double(inputs), dtype), strict=True):
        assert_agrees(a.cpu(), b)


def test_implementation_is_named() -> None:
    assert implementation().startswith("compiled, " if is_compiled else "plain PyTorch (")
