// Changes elements, and only where they differ. Texts from outside become text, never markup.

import {locate} from './root.js';

export function clone(id) {
    return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

// Returns a new element; the path of a link begins at the panel. Parts that only the script shows are made here: the page's HTML stays small.
export function make(name, attributes, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
        element.setAttribute(key, key === 'href' ? locate(value) : value);
    }
    element.append(...children);
    return element;
}

const found = new WeakMap(); // element → selector → the element inside

// As `querySelector`, for elements that are never replaced: a refresh of a hundred rows needs a thousand of them.
export function find(element, selector) {
    let inside = found.get(element);
    if (!inside) {
        inside = new Map();
        found.set(element, inside);
    }
    if (!inside.has(selector)) {
        inside.set(selector, element.querySelector(selector));
    }
    return inside.get(selector);
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

export function isDisabled(button) {
    return button.getAttribute('aria-disabled') === 'true';
}

export function listItems(list, texts) {
    list.replaceChildren(...texts.map(text => {
        const item = document.createElement('li');
        item.textContent = text;
        return item;
    }));
}
