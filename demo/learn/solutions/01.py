"""The exercises of lesson 1: what is checked, an answer, and the mistake most often made."""


def check_1(f):
    assert f(2) == 4, "f(2) is not 4"


def answer_1(x):
    return x * x


def mistake_1(x):
    return x + x + 1


check_2, answer_2, mistake_2 = check_1, answer_1, mistake_1
check_3, answer_3, mistake_3 = check_1, answer_1, mistake_1
