// Words that several features use: numbers of instances, ages and times of day.

import {getNow} from './clock.js';

// An event that has just happened may seem to lie this far ahead: clocks differ, and the server's is known to the second.
const AHEAD_SECONDS = 5;

export function capitalize(word) {
    return word[0].toUpperCase() + word.slice(1);
}

// Made once: a format takes longer to make than a hundred numbers to write.
const cents = new Intl.NumberFormat('en-US', {minimumFractionDigits: 2, maximumFractionDigits: 2});
const whole = new Intl.NumberFormat('en-US', {maximumFractionDigits: 0});

// Returns a number of instances, or of anything else that is counted.
export function sayNumber(number) {
    return whole.format(number);
}

export function sayUsd(amount, digits = 2) {
    return `$${(digits ? cents : whole).format(amount)}`;
}

// Returns an amount in USD per hour.
export function sayCost(perHour) {
    return `${sayUsd(perHour)}/h`;
}

// Returns what an instance costs in its present status.
export function sayInstanceCost({prepaid, costPerHour}) {
    return prepaid ? 'prepaid' : costPerHour === null ? 'not known' : sayCost(costPerHour);
}

export const PAST = {start: 'started', stop: 'stopped', restart: 'restarted'};

export function count(number) {
    return `${sayNumber(number)} instance${number === 1 ? '' : 's'}`;
}

// Without the server's time there is no age: then the moment itself.
export function sayAge(time) {
    const now = getNow();
    if (now === null) {
        return sayMoment(time);
    }
    const passed = Math.round((now - new Date(time)) / 1000);
    const seconds = passed < -AHEAD_SECONDS ? -passed : Math.max(0, passed);
    const [unit, size] = seconds < 60 ? ['s', 1] : seconds < 3600 ? ['min', 60] : seconds < 172800 ? ['h', 3600] : ['days', 86400];
    return passed < -AHEAD_SECONDS ? `in ${Math.round(seconds / size)} ${unit}` : `${Math.floor(seconds / size)} ${unit} ago`;
}

// Says a time in its largest unit.
export function saySpan(seconds) {
    const [unit, size] = seconds < 3600 ? ['min', 60] : seconds < 172800 ? ['h', 3600] : ['d', 86400];
    return seconds < 60 ? '< 1 min' : `${Math.floor(seconds / size)} ${unit}`;
}

// Returns an amount in USD, without cents where they don't matter.
export function sayMoney(amount) {
    return sayUsd(amount, amount < 100 ? 2 : 0);
}

// Returns what an instance costs per hour in its present status, without the unit.
export function sayPrice({prepaid, costPerHour}) {
    return prepaid ? 'prepaid' : costPerHour === null ? 'unknown' : cents.format(costPerHour);
}

export function sayMoment(time) {
    return new Date(time).toLocaleString();
}

const HALF_DAY_MS = 43200000;

// Returns the time of day, with the day if that is some time ago.
export function sayStart(time) {
    const isOld = Math.abs((getNow() ?? Date.now()) - new Date(time)) > HALF_DAY_MS;
    const day = isOld ? {month: 'short', day: 'numeric'} : {};
    return new Date(time).toLocaleString([], {...day, hour: 'numeric', minute: '2-digit'});
}

// Returns a sentence of the server's, with its times as the browser writes them.
export function sayLocal(sentence) {
    return sentence.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, sayStart);
}

export function sayClock(time) {
    return new Date(time).toLocaleTimeString();
}
