"""The colours of all figures and charts: Okabe and Ito's palette, safe for colour-blind readers.

See https://jfly.uni-koeln.de/color/.
"""

BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#6e6e6e"
CHANNELS = {"red": "#D55E00", "green": GREEN, "blue": BLUE}
