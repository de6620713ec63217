"""`python -m services.onboarding`: the onboarding service as a process of its own."""

from services.onboarding.app import build
from services.onboarding.settings import OnboardingSettings
from shared.service import main

if __name__ == "__main__":
    main(build, OnboardingSettings)
