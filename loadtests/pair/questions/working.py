"""Workings written digit by digit, so that each step is a small lookup in what stands before it."""


def add_columns(a: int, b: int) -> str:
    """Column addition from the right: `047+385: 7+5+0=12,4+8+1=13,0+3+1=04`; each result is carry then digit."""
    width = max(len(str(a)), len(str(b)))
    left, right = f"{a:0{width}}", f"{b:0{width}}"
    carry, columns = 0, []
    for x, y in zip(reversed(left), reversed(right), strict=True):
        total = int(x) + int(y) + carry
        columns.append(f"{x}+{y}+{carry}={total:02}")
        carry = total // 10
    return f"{left}+{right}: " + ",".join(columns)


def subtract_columns(a: int, b: int) -> str:
    """Column subtraction from the right for `a >= b`; each result is borrow then digit."""
    width = len(str(a))
    left, right = str(a), f"{b:0{width}}"
    borrow, columns = 0, []
    for x, y in zip(reversed(left), reversed(right), strict=True):
        rest = int(x) - int(y) - borrow
        columns.append(f"{x}-{y}-{borrow}={int(rest < 0)}{rest % 10}")
        borrow = int(rest < 0)
    return f"{left}-{right}: " + ",".join(columns)


def multiply_digit(a: int, digit: int) -> str:
    """`a` times one digit, from the right: `47*6: 7*6+0=42,4*6+4=28`."""
    carry, columns = 0, []
    for x in reversed(str(a)):
        product = int(x) * digit + carry
        columns.append(f"{x}*{digit}+{carry}={product:02}")
        carry = product // 10
    return f"{a}*{digit}: " + ",".join(columns)


def multiply(a: int, b: int) -> str:
    """`a * b` for `b < 100`: one digit at a time, then the column addition of both parts."""
    tens, ones = divmod(b, 10)
    if not tens:
        return multiply_digit(a, ones)
    lines = [f"{multiply_digit(a, ones)} -> {a * ones}", f"{multiply_digit(a, tens)} -> {a * tens * 10}"]
    return "\n".join([*lines, add_columns(a * tens * 10, a * ones)])


def divide(a: int, b: int) -> str:
    """Long division by one digit: `137/6: 1/6=0r1,13/6=2r1,17/6=2r5`."""
    rest, steps = 0, []
    for digit in str(a):
        current = rest * 10 + int(digit)
        steps.append(f"{current}/{b}={current // b}r{current % b}")
        rest = current % b
    return f"{a}/{b}: " + ",".join(steps)


def running_total(numbers: list[int]) -> str:
    """`12+35=47,47+8=55`."""
    total, steps = numbers[0], []
    for number in numbers[1:]:
        steps.append(f"{total}+{number}={total + number}")
        total += number
    return ",".join(steps)
