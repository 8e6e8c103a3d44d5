"""Areas as the docks write them, with as many digits as can be read at a glance; files have all of them."""


def square_millimetres(area: float) -> str:
    """Return an area in mm² with three decimals, or as a whole number from 100 on, without the unit."""
    return f"{area:.3f}" if area < 100 else f"{area:,.0f}"


def percent(share: float) -> str:
    """Return a share in percent, with one decimal and without the sign."""
    return f"{max(0.0, share):.1f}"
