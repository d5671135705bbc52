import pytest
import torch

from galatea.morphable.least_squares import NormalEquations, Problem, solve


def problem(residual, lower, upper):
    """Build a problem from a residual function (batch, n) -> (batch, m), differentiated by torch."""

    def cost(parameters, rows):
        return 0.5 * residual(parameters, rows).square().sum(1)

    def linearise(parameters, rows):
        points = parameters.clone().requires_grad_()
        columns = residual(points, rows).unbind(1)
        jacobian = torch.stack([torch.autograd.grad(c.sum(), points, retain_graph=True)[0] for c in columns], dim=1)
        value = residual(parameters, rows)
        gradient = (jacobian.transpose(1, 2) @ value[..., None])[..., 0]
        return NormalEquations(cost(parameters, rows), gradient, jacobian.transpose(1, 2) @ jacobian)

    return Problem(linearise, cost, lambda parameters, step: parameters + step, lower, upper)


INFINITE = torch.full((2,), torch.inf)


def test_linear_problem_is_solved_to_its_closed_form():
    generator = torch.Generator().manual_seed(0)
    matrix, right = torch.randn(9, 2, generator=generator), torch.randn(5, 9, generator=generator)
    solution = solve(
        problem(lambda p, rows: p @ matrix.T - right[rows], -INFINITE, INFINITE), torch.zeros(5, 2), tolerance=1e-7
    )
    expected = torch.linalg.lstsq(matrix, right.T).solution.T
    assert torch.allclose(solution.parameters, expected, atol=1e-3)
    assert bool(solution.is_converged.all())


def test_rosenbrock_valley_is_followed_to_its_minimum():
    def residual(p, rows):
        return torch.stack([10 * (p[:, 1] - p[:, 0].square()), 1 - p[:, 0]], dim=1)

    start = torch.tensor([[-1.2, 1.0], [2.0, 2.0], [0.0, 0.0]])
    solution = solve(problem(residual, -INFINITE, INFINITE), start, max_iterations=100, tolerance=1e-9)
    assert torch.allclose(solution.parameters, torch.ones(3, 2), atol=1e-2)


def test_bounds_hold_and_the_free_parameter_adapts():
    matrix = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    target = matrix @ torch.tensor([2.0, -1.0])
    lower, upper = torch.zeros(2), torch.ones(2)
    solution = solve(
        problem(lambda p, rows: p @ matrix.T - target, lower, upper), torch.full((1, 2), 0.5), tolerance=1e-8
    )
    grid = torch.stack(torch.meshgrid(torch.linspace(0, 1, 201), torch.linspace(0, 1, 201), indexing="ij"), -1)
    errors = (grid.reshape(-1, 2) @ matrix.T - target).square().sum(1)
    assert torch.allclose(solution.parameters[0], grid.reshape(-1, 2)[errors.argmin()], atol=0.01)


def test_cost_never_rises_and_problems_do_not_disturb_each_other():
    def residual(p, rows):
        return torch.stack([torch.sin(3 * p[:, 0]) + p[:, 1], p[:, 0] * p[:, 1] - 0.5 - rows], dim=1)

    start = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    together = solve(problem(residual, -INFINITE, INFINITE), start)
    assert bool((together.cost <= 0.5 * residual(start, torch.arange(6)).square().sum(1)).all())
    for row in range(6):
        alone = solve(
            problem(lambda p, rows, row=row: residual(p, rows + row), -INFINITE, INFINITE), start[row : row + 1]
        )
        assert torch.allclose(alone.parameters[0], together.parameters[row], atol=1e-3)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-6])
def test_nothing_to_do_converges_at_once(tolerance):
    solution = solve(problem(lambda p, rows: p, -INFINITE, INFINITE), torch.zeros(2, 2), 2, tolerance)
    assert bool(solution.is_converged.all())
