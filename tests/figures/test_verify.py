from cifar2.figures import verify
from cifar2.gradcheck import Case, Errors
from tests.figures.test_canvas import texts


def test_gradient_errors_show_each_group_and_both_tolerances():
    case = Case((5, 3), "relu", "identity", "cross_entropy", 4)
    figure = verify.gradient_errors([(case, Errors(0.0, 1e-9))], Errors(1e-12, 1e-7))
    shown = texts(figure)
    for text in ("relu, cross entropy", "tolerance, autograd", "tolerance, central difference"):
        assert text in shown
    points = [c.get_offsets()[0][0] for c in figure.axes[0].collections]
    assert points == [1e-17, 1e-9]
