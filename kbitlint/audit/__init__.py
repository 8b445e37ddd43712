"""Audits: target -> facts -> rules -> report. Nothing here knows a fix."""
