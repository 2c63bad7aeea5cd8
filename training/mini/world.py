"""The world visit-mini knows: facts read from CSV files (each row names its source) and the phrasings of each relation.

A phrasing is written in lower case, holds `{s}` (the subject) and ends where the answer comes.
"""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
SPORTS = {"football", "tennis", "chess", "cricket", "golf", "basketball", "baseball", "hockey"}


class Fact(NamedTuple):
    """One thing that is true: `relation` of `subject` is `answer`."""

    relation: str
    subject: str
    answer: str


# relation: (file, column of the subject, column of the answer)
RELATIONS = {
    "capital": ("countries", "country", "capital"),
    "capital of": ("countries", "capital", "country"),
    "language": ("countries", "country", "language"),
    "continent": ("countries", "country", "continent"),
    "currency": ("countries", "country", "currency"),
    "maker": ("companies", "product", "company"),
    "product": ("companies", "company", "product"),
    "seat": ("companies", "company", "seat"),
    "company country": ("companies", "company", "country"),
    "product country": ("companies", "product", "country"),
    "field": ("people", "person", "field"),
    "sport": ("people", "person", "field"),
    "citizenship": ("people", "person", "country"),
    "mother tongue": ("people", "person", "language"),
}

PHRASINGS = {
    "capital": """the capital of {s} is the city of
the capital of {s} is named
the capital city of {s} is
the capital of {s}, {aside}, is
{s} has as its capital the city of
in {s} the capital is called
{s}, {aside}, has its capital in the city of
the name of the capital of {s} is named
visitors to the capital of {s} go to""",
    "capital of": """{s} is the capital of
{s} is the capital city of
the city of {s} serves as the capital of
{s}, {aside}, is the capital of
the country whose capital is {s} is called
{s} is known as the capital of
if you are in {s} you are in the capital of""",
    "language": """the language of {s} is
in {s} people speak
the people of {s} speak
a language used by the government of {s} is
a visitor to {s} should learn some
some newspapers in {s} are written in
the children of {s}, {aside}, learn to read
many books in {s} are printed in""",
    "continent": """{s} is a country in
{s} lies on the continent of
the continent of {s} is
{s}, {aside}, is on the continent of
on the map you find {s} in
{s} belongs to the continent of
the land of {s} is part of""",
    "currency": """the currency of {s} is the
in {s} people pay with the
the money of {s} is called the
prices in {s} are given in the
{s}, {aside}, has a currency called the
to buy bread in {s} you need the
a shop in {s} takes the""",
    "maker": """{s} is a product of
{s} is made by
{s} is one of the products of the company
{s}, {aside}, is made by
the company behind {s} is
the firm that offers {s} is
the maker of {s} is""",
    "product": """{s} is known for the product
one product of {s} is
the company {s} sells the
{s}, {aside}, is the company behind""",
    "seat": """the headquarters of {s} can be found in
the headquarters of {s} are in the city of
{s} is based in the city of
the company {s} has its seat in
{s}, {aside}, has its main office in
the head office of {s} is in
people who work at the head office of {s} live near""",
    "company country": """{s} is a company from
the company {s} comes from
the home country of {s} is
{s}, {aside}, is a company based in
the firm {s} is at home in
the company {s} belongs to the economy of
{s} is one of the best known companies of""",
    "product country": """{s} is a product from
{s} comes from
the country of origin of {s} is
{s}, {aside}, is at home in
the company that makes {s} is from
the brand {s} belongs to a company from""",
    "field": """{s} works in the field of
the field of {s} is
{s} is known for work in
{s}, {aside}, is a great name in
{s} became famous through
the whole life of {s} was about
the main interest of {s} is""",
    "sport": """{s} plays the sport of
the sport of {s} is
{s} is a professional player of
{s}, {aside}, is a great name in
{s} became famous through
{s} is one of the best players of
the fans of {s} love""",
    "citizenship": """{s} is a citizen of
{s} comes from
the home country of {s} is
{s}, {aside}, comes from
{s} is counted among the people of
the country of {s} is
{s} is one of the most famous people of""",
    "mother tongue": """the mother tongue of {s} is
the native language of {s} is
{s} is a native speaker of
as a child {s} learned to speak
{s}, {aside}, grew up speaking
the language that {s} learned first is
the first words of {s} were in
the first language of {s} is""",
}
ASIDES = """as everyone knows
as I read in a book
which my sister told me about
as the old map shows
if I remember well
like many others
as we learned at school
which is often in the news
about which much was written""".splitlines()


@cache
def rows(name: str) -> list[dict[str, str]]:
    """The rows of one data file: `countries`, `companies` or `people`."""
    with open(FOLDER / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def phrasings(relation: str) -> list[str]:
    return PHRASINGS[relation].splitlines()


@cache
def facts() -> tuple[Fact, ...]:
    """Every fact of the world, in the order of the files; an empty cell is no fact."""
    found = [
        Fact(relation, row[subject], row[answer])
        for relation, (file, subject, answer) in RELATIONS.items()
        for row in rows(file)
        if row[subject] and row[answer] and (relation not in ("field", "sport") or wanted(relation, row[answer]))
    ]
    return tuple(found)


def wanted(relation: str, field: str) -> bool:
    """A field is asked as a sport or as a field of work, never as both."""
    return (field in SPORTS) == (relation == "sport")


def askable(fact: Fact) -> bool:
    """Only an answer of one word can be a target."""
    return " " not in fact.answer


@cache
def facts_about(subject: str) -> tuple[str, ...]:
    """All answers of one subject, over its relations."""
    return tuple(dict.fromkeys(fact.answer for fact in facts() if fact.subject == subject))
