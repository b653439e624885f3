"""Working days in China, as the State Council set them year by year (the data are the package chinesecalendar's)."""

from __future__ import annotations

from datetime import date, timedelta

import chinese_calendar

from ledger.errors import InputError


def working_day(day: date) -> bool:
    """True if offices work on `day`: weekends that make up for a holiday count. InputError `calendar.no_year` without data."""
    try:
        return bool(chinese_calendar.is_workday(day))
    except NotImplementedError as error:
        raise InputError(
            "calendar.no_year",
            f"没有 {day.year} 年的工作日历，无法计算期限；请升级 chinesecalendar 软件包（国务院办公厅每年 11 月前后公布次年安排）",
            f"there are no working days on record for {day.year}, so deadlines cannot be counted: install a newer chinesecalendar",
            str(day.year),
        ) from error


def due(start: date, days: int) -> date:
    """The last day of a term of `days` working days that begins the day after `start` (Civil Code, article 201)."""
    day = start
    while days > 0:
        day += timedelta(days=1)
        days -= working_day(day)
    return day
