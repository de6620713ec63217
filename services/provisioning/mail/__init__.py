"""What becomes of tenants' mails: heard from Amazon, counted, told, and acted upon.

Amazon tells one central topic of every mail of every silo; a queue keeps what it says until it is counted here.
"""

from services.provisioning.mail.applying import Applying, Switch
from services.provisioning.mail.judging import Limits, Score
from services.provisioning.mail.queue import Queue, open_queue
from services.provisioning.mail.reading import Reader
from services.provisioning.mail.recording import Recorder
from services.provisioning.mail.reporting import Reporter

__all__ = ["Applying", "Limits", "Queue", "Reader", "Recorder", "Reporter", "Score", "Switch", "open_queue"]
