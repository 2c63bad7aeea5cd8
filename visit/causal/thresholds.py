"""From where on an effect has a name: thresholds that tables, charts, sentences and roles share."""

from __future__ import annotations

ATTENDS = 0.2  # of a head's attention at the looked-at position
READS = 10  # a memory value reads a word that stands among its first ten
ADDS = 0.1  # logits
COSTS = 0.3  # logits of the prediction against the repeated word, lost without the head
AS_MUCH, MORE = 0.75, 1.5  # of what a part adds: a removal that loses between these loses what the part adds
MADE_UP = 0.25  # of what a part adds: a removal that loses less is made up for by others
