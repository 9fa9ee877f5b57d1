"""What every route is given: the services, and the person (whom the guard found) when their role fits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from annotate.auth import current_person, require
from annotate.services import Services
from annotate.text import refuse_controls
from store.records import Message, Person, Role


async def read_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def anyone(request: Request) -> Person:
    """The signed-in person, whatever their role."""
    return current_person(request)


def allow(*roles: Role) -> Callable[[Request], Awaitable[Person]]:
    """A dependency that gives the person when they have one of the roles (an admin always does)."""

    async def check(request: Request) -> Person:
        return require(request, *roles)

    return check


Given = Annotated[Services, Depends(read_services)]
Anyone = Annotated[Person, Depends(anyone)]
Annotator = Annotated[Person, Depends(allow("annotator"))]
Tester = Annotated[Person, Depends(allow("tester"))]
Admin = Annotated[Person, Depends(allow("admin"))]

Text = Annotated[str, AfterValidator(refuse_controls)]
ShortText = Annotated[Text, StringConstraints(max_length=500)]


@dataclass(frozen=True)
class MessageAnswer:
    """A chat message as it is sent (the record is a TypedDict, which has no schema before Python 3.12)."""

    role: str
    content: str


def show_messages(messages: Sequence[Message]) -> list[MessageAnswer]:
    """Messages as they are sent."""
    return [MessageAnswer(message["role"], message["content"]) for message in messages]


class Body(BaseModel):
    """A request body: a field we do not know is a mistake worth hearing about."""

    model_config = ConfigDict(extra="forbid")
