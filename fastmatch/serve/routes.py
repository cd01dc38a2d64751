"The routes of the API: what is asked, what is done for it, and what is answered."
import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Query, Request, Response, UploadFile
from pydantic import TypeAdapter, ValidationError

from . import answers
from .guard import COOKIE, page_token, same
from .service import Listing, Service
from .shown import (
    about,
    change_of,
    close_calls_of,
    event_of,
    found_of,
    group_of,
    groups_of,
    match_of,
    why_of,
)
from .uploads import Refused, inside, read_upload

REFUSALS = {
    400: 'The request is no request.', 401: 'The key is missing or wrong.', 403: 'Another site asks.',
    404: 'No such listing, group or event; or there is no catalogue.', 408: 'The request came too slowly.',
    409: 'The catalogue holds something else than the request supposes.',
    413: 'Too many bytes, pixels, pictures or listings.', 415: 'Not a picture, or not of a known format.',
    421: 'Asked under a name that is not its own.', 422: 'Something that was given can not be used.',
    503: 'Too much is asked at once, or another process writes: try again.', 507: 'The disk is full.'}
RESPONSES = {status: {'model': answers.Problem, 'description': words} for status, words in REFUSALS.items()}
COLUMNS = TypeAdapter(dict[str, answers.Cell])
TEXT = {'content': {'text/plain': {'schema': {'type': 'string'}}}}

routes = APIRouter(prefix='/api', responses=RESPONSES)
plain = APIRouter(responses={status: RESPONSES[status] for status in (400, 401, 408, 413, 421, 503)})


def service_of(request: Request) -> Service:
    "The service that an application was made around."
    return request.app.state.service


Served = Annotated[Service, Depends(service_of)]
Listed = Annotated[str, Query(max_length=200, min_length=1, description='Id of a listing.')]
Pictures = Annotated[list[UploadFile], File(description='Picture files: JPEG, PNG, WebP, GIF, BMP.')]
Title = Annotated[str | None, Form(description='The title.')]
Cells = Annotated[str | None, Form(description='Further columns as json, {"price": 12}.')]
Words = Annotated[str, Form(max_length=500)]
Count = Annotated[int, Query(ge=1, le=1000, description='How many, as far as they are given at once.')]


# --- what is read of a request

def cells_of(
    columns: str | None,  # Json
) -> dict:
    "Further columns of a form; raises `Refused` where they are no json of single values."
    if not columns: return {}
    try: return COLUMNS.validate_json(columns)
    except ValidationError: raise Refused(422, 'columns: give json of single values, {"price": 12}') from None


async def uploads_of(
    service: Service,
    files: list[UploadFile],
) -> list:  # `Upload`s
    "The pictures of a form, as far as they may be decoded."
    if len(files) > service.limits.pictures:
        raise Refused(413, f'{len(files)} pictures: {service.limits.pictures} are taken of a listing')
    return [read_upload(await file.read(), file.filename, service.limits) for file in files]


def listings_of(
    service: Service,
    given: list,  # `ListingIn`s
) -> list[Listing]:
    "The listings of a request in json."
    limits = service.limits
    if len(given) > limits.listings: raise Refused(413, f'{len(given)} listings: {limits.listings} are taken')
    most = max(len(listing.pictures) for listing in given)
    if most > limits.pictures:
        raise Refused(413, f'{most} pictures: {limits.pictures} are taken of a listing')
    for listing in given: _check_title(service, listing.title)
    return [Listing(getattr(listing, 'id', None), listing.title,
                    [read_upload(content, None, limits) for content in listing.pictures], listing.columns)
            for listing in given]


def _check_title(service, title):
    if title is not None and len(title) > service.limits.title:
        raise Refused(422, f'title: {len(title)} letters, {service.limits.title} are taken')


def _options(signed): return {'who': signed.who, 'reason': signed.reason, 'dry_run': signed.dry_run}


# --- matching

@routes.post('/match', response_model=answers.Matches, tags=['match'])
async def match(service: Served, title: Title = None, picture: Pictures = (), columns: Cells = None):
    "What a picture and a title match. Nothing is kept."
    _check_title(service, title)
    listing = Listing(None, title, await uploads_of(service, picture), cells_of(columns))
    return match_of(*(await service.match([listing]))[0])


@routes.post('/match/many', response_model=answers.MatchesOfMany, tags=['match'])
async def match_many(service: Served, asked: answers.ListingsIn):
    "What each of several listings matches, each as if it were asked for alone."
    listings = await asyncio.to_thread(listings_of, service, asked.listings)
    return {'listings': [match_of(*found) for found in await service.match(listings)]}


# --- changes

@routes.post('/add', response_model=answers.Change, tags=['change'])
async def add(service: Served, id: Annotated[answers.Id, Form(description='Names the listing.')],
              title: Title = None, picture: Pictures = (), columns: Cells = None,
              on_known: Annotated[str, Form(pattern='^(raise|skip|replace)$')] = 'raise', who: Words = '',
              reason: Words = '', dry_run: Annotated[bool, Form()] = False):
    "Add a listing: it joins a group, opens one, or brings groups together."
    _check_title(service, title)
    listing = Listing(id, title, await uploads_of(service, picture), cells_of(columns))
    return change_of(await service.add([listing], on_known=on_known, who=who, reason=reason, dry_run=dry_run))


@routes.post('/add/many', response_model=answers.Change, tags=['change'])
async def add_many(service: Served, asked: answers.NewListings):
    "Add several listings, all or none."
    listings = await asyncio.to_thread(listings_of, service, asked.listings)
    return change_of(await service.add(listings, on_known=asked.on_known, **_options(asked)))


@routes.post('/remove', response_model=answers.Change, tags=['change'])
async def remove(service: Served, asked: answers.Ids):
    "Take listings out; a group that only they held together falls apart."
    await service.needs(asked.ids)
    return change_of(await service.write(lambda held: held.remove(asked.ids, **_options(asked))))


@routes.post('/verdict', response_model=answers.Change, tags=['change'])
async def verdict(service: Served, asked: answers.Verdict):
    "Keep what a person says of two listings: every later grouping obeys it."
    await service.needs([asked.first, asked.second])
    return change_of(await service.write(
        lambda held: held.verdict(asked.first, asked.second, asked.same, **_options(asked))))


@routes.post('/split', response_model=answers.Change, tags=['change'])
async def split(service: Served, asked: answers.Split):
    "Part listings from the rest of their group."
    await service.read(group_of, asked.group, 1)
    return change_of(await service.write(lambda held: held.split(asked.group, asked.ids, **_options(asked))))


@routes.post('/undo', response_model=answers.Change, tags=['change'])
async def undo(service: Served, asked: answers.Undo):
    "Take an event back; later ones stay."
    if asked.event > await service.read(lambda reader: reader.last_event):
        raise Refused(404, f'event {asked.event}: there is none of this number')
    return change_of(await service.write(lambda held: held.undo(asked.event, **_options(asked))))


# --- questions

@routes.get('/about', response_model=answers.About, tags=['read'])
async def about_it(service: Served):
    "What the service holds, what a listing must have, and the rule in words."
    if service.catalogue is None: return about(service, None)
    return about(service, await service.read(
        lambda reader: (len(reader), reader.n_groups, reader.last_event, reader.threshold)))


@routes.get('/search', response_model=answers.Found, tags=['read'])
async def search(service: Served, text: Annotated[str, Query(max_length=500)], n: Count = 50):
    "Listings whose title holds all words of a text, or whose id it is."
    n = min(n, service.limits.answers)
    return {'listings': await service.read(found_of, text, n)}


@routes.get('/groups', response_model=answers.Groups, tags=['read'])
async def groups(service: Served, n: Count = 20, start: Annotated[int, Query(ge=0, le=10**9)] = 0,
                 least: Annotated[int, Query(ge=1, le=10**6, description='Listings of a group.')] = 2):
    "Groups with their listings, the largest first."
    return await service.read(groups_of, min(n, service.limits.answers), start, least)


@routes.get('/groups/{group}', response_model=answers.Group, tags=['read'])
async def group(service: Served, group: answers.Number):
    "A group, under its number or under one that was merged into it."
    return await service.read(group_of, group, service.limits.answers)


@routes.get('/why', response_model=answers.Reasons, tags=['read'])
async def why(service: Served, first: Listed, second: Annotated[str | None, Query(max_length=200)] = None):
    "Why two listings are in one group or in two; or what holds one in its group."
    await service.needs([first] if second is None else [first, second])
    return await service.read(why_of, first, second, service.limits.answers)


@routes.get('/close-calls', response_model=answers.CloseCalls, tags=['read'])
async def close_calls(service: Served, n: Count = 20):
    "The pairs nearest to the threshold that nobody judged: those to show to a person first."
    return await service.read(close_calls_of, min(n, service.limits.answers))


@routes.get('/events', response_model=answers.Events, tags=['read'])
async def events(service: Served, n: Count = 20):
    "What changed the catalogue, the newest first."
    n = min(n, service.limits.answers)
    return {'events': await service.read(
        lambda reader: [event_of(row) for row in reader.events(n).iloc[::-1].to_dict('records')])}


@routes.get('/picture', tags=['read'], response_class=Response,
            responses={200: {'content': {'image/webp': {}}, 'description': 'A small picture.'}})
async def picture(request: Request, service: Served, id: Listed,
                  place: Annotated[int, Query(ge=0, le=1000)] = 0):
    "A small picture of a listing."
    names = await service.read(lambda reader: reader.listings([id]).pictures.tolist())
    file = None
    if names and place < len(names[0]) and service.settings.images is not None:
        file = inside(service.settings.images, names[0][place])
    content = None if file is None else await asyncio.to_thread(request.app.state.thumbnails.of, file)
    if content is None: raise Refused(404, f'{id}: there is no picture {place}')
    return Response(content, media_type='image/webp', headers={'cache-control': 'private, max-age=300'})


# --- the service itself

@plain.post('/api/session', response_model=answers.Status, tags=['service'],
            responses={401: RESPONSES[401], 422: RESPONSES[422]})
async def session(request: Request, response: Response, service: Served, asked: answers.Key):
    "Let the page ask without the key from now on: a cookie stands for it."
    key = service.settings.key
    if key is not None:
        if not same(asked.key, key): raise Refused(401, 'this is not the key')
        response.set_cookie(COOKIE, page_token(key), httponly=True, samesite='strict',
                            secure=request.url.scheme == 'https')
    return {'status': 'ok'}


@plain.get('/health', response_model=answers.Status, tags=['service'])
async def health():
    "Whether the service answers; no key is needed."
    return {'status': 'ok'}


@plain.get('/metrics', tags=['service'], response_class=Response,
           responses={200: {**TEXT, 'description': 'Figures as Prometheus reads them.'}})
async def metrics(service: Served):
    "Figures of the running service."
    if service.catalogue is not None:
        listings, event = await service.read(lambda reader: (len(reader), reader.last_event))
        service.metrics.listings.set(listings)
        service.metrics.event.set(event)
    service.metrics.waits(embed=service.embedding.queued, search=service.searching.queued)
    return Response(service.metrics.text(), media_type='text/plain; version=0.0.4; charset=utf-8')
