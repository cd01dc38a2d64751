"What requests and answers hold, for the checks of both and for OpenAPI."
from typing import Annotated

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, StringConstraints

# as the catalogue takes them: no blanks, which lists of matches are separated by, and no control characters
Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r'^[^\s\x00-\x20\x7f-\x9f]+$')]
Words = Annotated[str, StringConstraints(max_length=500)]
# SQLite's whole numbers have 63 bits
Number = Annotated[int, Field(ge=1, le=2**53)]
Cell = Annotated[str, StringConstraints(max_length=2000)] | int | float | bool | None


class Asked(BaseModel):
    "The parent of all requests: a field that nobody reads is an error, not a wish that is passed over."
    model_config = ConfigDict(extra='forbid', allow_inf_nan=False)


class ListingIn(Asked):
    "A listing as the matcher reads it."
    title: str | None = Field(None, description='Its title.')
    pictures: list[Base64Bytes] = Field([], description='Its picture files, base64.')
    columns: dict[str, Cell] = Field({}, description='Further columns that the rule compares, by name.')


class NewListing(ListingIn):
    "A listing to add."
    id: Id = Field(description='Names the listing; no two have the same.')


class Signed(Asked):
    "Who does something, and why: kept in the record."
    who: Words = ''
    reason: Words = ''
    dry_run: bool = Field(False, description='Say what would change, and keep nothing.')


class ListingsIn(Asked):
    "Listings to match."
    listings: list[ListingIn] = Field(min_length=1)


class NewListings(Signed):
    "Listings to add, all or none."
    listings: list[NewListing] = Field(min_length=1)
    on_known: str = Field('raise', description='Ids that are there: raise, skip or replace.',
                          pattern='^(raise|skip|replace)$')


class Ids(Signed):
    "Listings to take out."
    ids: list[Id] = Field(min_length=1, max_length=10_000)


class Verdict(Signed):
    "What a person says of two listings."
    first: Id
    second: Id
    same: bool = Field(description='Whether both are the same product.')


class Split(Signed):
    "Listings of a group that are another product than its rest."
    group: Number
    ids: list[Id] = Field(min_length=1, max_length=1000)


class Undo(Signed):
    "An event to take back."
    event: Number


class Key(Asked):
    "The key that the service was started with."
    key: Annotated[str, StringConstraints(max_length=1000)]


class Problem(BaseModel):
    "Why a request was not carried out."
    detail: str


class Status(BaseModel):
    "Whether the service answers."
    status: str


class Shown(BaseModel):
    "A listing as it is shown."
    id: str
    title: str | None
    group: int | None = Field(description='None: in no catalogue.')
    pictures: list[str] = Field(description='Addresses of small pictures.')


class Match(BaseModel):
    "A listing that matches."
    listing: Shown
    score: float | None = Field(description='Fused; missing for equal keys, which match without one.')
    scores: dict[str, float] = Field(description='By modality.')
    why: str = Field(description='What made it a match.')


class Matches(BaseModel):
    "What a listing matches, the best first."
    matches: list[Match]
    threshold: float = Field(description='Pairs with this score or more match.')


class MatchesOfMany(BaseModel):
    "What each listing matches, in the order that they were given."
    listings: list[Matches]


class Moved(BaseModel):
    "A listing whose group changed; no number: it was in none, or is in none now."
    id: str
    before: int | None
    after: int | None


class Merged(BaseModel):
    "A group that is part of an older one now."
    group: int
    into: int


class Change(BaseModel):
    "What an event did."
    event: int | None = Field(description='Its number, by which it can be undone; None: nothing was kept.')
    kind: str
    words: str
    moved: list[Moved]
    opened: list[int]
    merged: list[Merged]
    gone: list[int]
    known: list[str] = Field(description='Ids that were there and were left as they are.')


class Group(BaseModel):
    "Listings that are the same product."
    group: int
    size: int = Field(description='How many listings it has; not all of very many are given.')
    listings: list[Shown]


class Groups(BaseModel):
    "Groups, the largest first."
    groups: list[Group]
    more: bool


class PairOf(BaseModel):
    "Two listings with their score."
    first: Shown
    second: Shown
    score: float | None
    scores: dict[str, float]
    why: str


class CloseCall(PairOf):
    "A pair near the threshold that nobody judged."
    matches: bool


class CloseCalls(BaseModel):
    "Pairs nearest to the threshold, for a person to judge."
    pairs: list[CloseCall]
    threshold: float


class Reasons(BaseModel):
    "Why listings are in one group, or in two."
    sentence: str
    pairs: list[PairOf]
    threshold: float


class Found(BaseModel):
    "Listings whose title holds all words."
    listings: list[Shown]


class EventOf(BaseModel):
    "Something that changed the catalogue."
    event: int
    kind: str
    time: str = Field(description='UTC.')
    who: str
    reason: str


class Events(BaseModel):
    "The last events, the newest first."
    events: list[EventOf]


class About(BaseModel):
    "What the service holds and reads."
    listings: int
    groups: int | None = Field(description='None: there is no catalogue.')
    event: int | None
    inputs: list[str] = Field(description='What a listing must have: image, title.')
    columns: list[str] = Field(description='Further columns that it may have.')
    keeps_pictures: bool
    rule: list[str] = Field(description='In words.')
    threshold: float
    limits: dict[str, float]
