"""Data sets: sources of records, and feeds that bring them to the devices."""

from sslax.data.feed import AbstractFeed as AbstractFeed
from sslax.data.feed import Feed as Feed
from sslax.data.feed import abstract_feed as abstract_feed
from sslax.data.feed import epoch_order as epoch_order
from sslax.data.feed import evaluation_batches as evaluation_batches
from sslax.data.feed import make_feed as make_feed
from sslax.data.fingerprint import fingerprint as fingerprint
from sslax.data.loading import check as check
from sslax.data.loading import defaults as defaults
from sslax.data.loading import kinds as kinds
from sslax.data.loading import load as load
from sslax.data.loading import name_of as name_of
from sslax.data.records import ArraySource as ArraySource
from sslax.data.records import DataError as DataError
from sslax.data.records import Dataset as Dataset
from sslax.data.records import ImageError as ImageError
from sslax.data.records import Source as Source
from sslax.data.records import is_generated as is_generated
from sslax.data.records import shapes as shapes
from sslax.data.sources import SOURCES as SOURCES
