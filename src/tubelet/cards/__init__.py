"""What a task answers: classes, numbers, or vectors to find things by.

A card is kept with the model and says all that is needed to use it.
"""

from tubelet.cards.card import Answer, Answers, Arrays, ClassTables, Panel, TaskCard
from tubelet.cards.classes import ClassCard
from tubelet.cards.numbers import NumberCard
from tubelet.cards.retrieval import RetrievalCard
from tubelet.cards.zero_shot import ZeroShotCard
from tubelet.configs import register

__all__ = [
    "Answer",
    "Answers",
    "Arrays",
    "ClassCard",
    "ClassTables",
    "NumberCard",
    "Panel",
    "RetrievalCard",
    "TaskCard",
    "ZeroShotCard",
]

CARDS: dict[str, type[TaskCard]] = {
    "classes": ClassCard,
    "numbers": NumberCard,
    "retrieval": RetrievalCard,
    "zero_shot": ZeroShotCard,
}

for _name, _card in CARDS.items():
    register(TaskCard, _name, _card)
