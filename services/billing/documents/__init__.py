"""Invoices for people: as a page and as a PDF that say the same, byte for byte the same whenever they are made."""

from services.billing.documents.content import Content, Seller
from services.billing.documents.formats import MEDIA_TYPES, Format, WantedFormat
from services.billing.documents.page import HEADERS as PAGE_HEADERS
from services.billing.documents.printer import Printer

__all__ = ["MEDIA_TYPES", "PAGE_HEADERS", "Content", "Format", "Printer", "Seller", "WantedFormat"]
