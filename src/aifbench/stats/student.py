"""Points of Student's t distribution."""

# 97.5 % points of Student's t with 1, 2, ... degrees of freedom; beyond them, their expansion in 1/df.
_T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
_Z = 1.959964


def student_t(freedom: int) -> float:
    """The 97.5 % point of Student's t."""
    return _T[freedom - 1] if freedom <= len(_T) else normal_to_student(_Z, freedom)


def normal_to_student(z: float, freedom: int) -> float:
    """The point of Student's t with the tail that z has of the normal distribution; from 5 degrees on to 1 %.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
