// Touching the page: only where it differs, and words from outside only as text.

import {getNow} from './clock.js';

// What has just happened may seem to be ahead by so much: clocks differ, and the server's is known to the second.
const AHEAD_SECONDS = 5;

export function clone(id) {
    return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

export function set(target, name, value) {
    if (target[name] !== value) {
        target[name] = value;
    }
}

export function setText(element, text) {
    set(element, 'textContent', text);
}

export function setDisabled(button, isDisabled) {
    if (isDisabled) {
        button.setAttribute('aria-disabled', 'true');
    } else {
        button.removeAttribute('aria-disabled');
    }
}

export function listItems(list, texts) {
    list.replaceChildren(...texts.map(text => {
        const item = document.createElement('li');
        item.textContent = text;
        return item;
    }));
}

// An error is announced at once, anything else when there is a pause.
export function tell(words, isError) {
    const [told, silent] = isError ? ['status-error', 'status-words'] : ['status-words', 'status-error'];
    document.getElementById(silent).textContent = '';
    document.getElementById(told).textContent = words;
    document.getElementById('status').classList.toggle('is-error', Boolean(isError));
}

export function count(number) {
    return `${number} instance${number === 1 ? '' : 's'}`;
}

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

export function sayMoment(time) {
    return new Date(time).toLocaleString();
}

export function sayClock(time) {
    return new Date(time).toLocaleTimeString();
}

export function findRepeated(names) {
    const seen = new Set();
    return new Set(names.filter(name => seen.has(name) || !seen.add(name)));
}
