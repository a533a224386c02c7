"""Figures and animations: the law, the three walks, and how far apart they are.

Every function returns a ``Figure`` (nothing is shown, no global state is touched); ``save`` writes
it. All take ``theme="light"`` or ``"dark"``. What is exact is grey, what a sampler made has the
colour of its view:

    density_xt                             laws on the line: heat map of p_t(x), paths over it
    particles, compare_points              samples of the plane, on their way and at the end
    score_field                            arrows over the log density
    convergence                            errors against evaluations, with fitted orders
    training_curve, loss_by_time           what a network has learned, above what can be learned
    error_ladder, learning_by_time, score_error    errors told apart by cause, time and place
    accuracy_by_time, guidance             a classifier, and what it does to the samples
    paths, paths_against_time              trajectories in the plane, and their coordinates
    animation, film                        the three views side by side, bodies in motion: GIFs
"""

from .animate import animation
from .curves import convergence, fit_order
from .density import WALKS, density_xt, walks
from .errors import error_ladder, learning_by_time, score_error
from .learning import accuracy_by_time, loss_by_time, training_curve
from .planes import compare_points, guidance, particles, score_field
from .style import THEMES, VIEWS, Pair, Theme, View, save, save_themes, view_of
from .trajectories import film, paths, paths_against_time

__all__ = [
    "THEMES",
    "VIEWS",
    "WALKS",
    "Pair",
    "Theme",
    "View",
    "accuracy_by_time",
    "animation",
    "compare_points",
    "convergence",
    "density_xt",
    "error_ladder",
    "film",
    "fit_order",
    "guidance",
    "learning_by_time",
    "loss_by_time",
    "particles",
    "paths",
    "paths_against_time",
    "save",
    "save_themes",
    "score_error",
    "score_field",
    "training_curve",
    "view_of",
    "walks",
]
