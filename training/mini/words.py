"""The words and frames of the sentences that state no fact; the plain lists are in `words.csv`."""

import csv
from pathlib import Path

with open(Path(__file__).parent / "words.csv", encoding="utf-8", newline="") as file:
    lists = {row["kind"]: row["words"].split() for row in csv.DictReader(file)}

NAMES = lists["names"]
PLACES = lists["places"]
OBJECTS = lists["objects"]
PEOPLE = lists["people"]
ANIMALS = lists["animals"]
THINGS = lists["things"]
ADJECTIVES = lists["adjectives"]
SEES = lists["sees"]
SLEEPS = lists["sleeps"]
BASES = lists["bases"]

OPENINGS = """when {x} and {y} went to the {place}
when {x} and {y} got to the {place}
after {x} and {y} went to the {place}
while {x} and {y} were at the {place}
when {x} and {y} were working at the {place}
then {x} and {y} had a long talk at the {place}
after {x} and {y} left the {place}
as {x} and {y} walked past the {place}
once {x} and {y} arrived at the {place}
because {x} and {y} met in the {place}
while {x} and {y} waited in front of the {place}
since {x} and {y} had found a {object} at the {place}""".splitlines()

GIVINGS = """gave a {object} to
handed a {object} to
passed a {object} to
offered a {object} to
showed a {object} to
sent a {object} to
sold a {object} to
brought a {object} to
decided to give a {object} to
wanted to give the {object} to
gave the old {object} to
had to hand the {object} to""".splitlines()

WHERE = """in the {place}
near the {place}
behind the {thing}
under the {thing}
on the {thing}
with a {person}
from the {place}
without the {animal}""".splitlines()

TIMES = """yesterday
today
in the morning
in the evening
at night
last year
every day
after lunch
before dinner
again
for a long time
in winter
in summer""".splitlines()

PLAIN = """the {adj} {person} {sees} the {thing} {where}
a {person} {sees} the {adj} {animal} {time}
the {person} who {sees} the {thing} {sleeps} {where}
the {animal} that the {person} {sees} {sleeps} {time}
the {person} did not {base} the {thing} because it was {adj}
the {person} was not {adj} but {adj2}
the {thing} is not {adj} and it is not {adj2} either
{name} did not {base} the {thing} and {name2} did not {base} it either
{name} {sees} the {thing}, but {name2} did not
if the {person} is {adj} then the {animal} is {adj2}
there is a {thing} {where}
there was no {thing} {where} and nobody {sees} it
she said that the {person} {sees} the {thing}
he thinks that the {thing} was {adj} when he {sees} it
they {sleeps} {where} and then they {sees} the {adj} {thing}
it was {adj} {time}, so the {person} {sleeps} {where}
no {person} {sees} the {animal} {where}
neither the {person} nor the {animal} {sleeps} {where}
we {sees} the {thing} which was {adj} and {adj2}
the {person} and the {person2} {sees} each other {where}
I have never seen a {thing} as {adj} as this one
you can {base} the {thing}, but you must not {base2} the {animal}
the {thing} of the {person} is {where}
all of the {thing} is {adj}, and none of it is {adj2}
what the {person} {sees} was not a {thing} but a {animal}
the {person} whose {animal} {sleeps} {where} {sees} a {thing}
before {name} {sees} the {thing}, she {sleeps} {where}
although he was {adj}, {name} {sees} the {adj2} {thing} {time}
to {base} a {thing} is not to {base2} it
the {person} will {base} the {adj} {thing} or the {adj2} {animal}""".splitlines()
