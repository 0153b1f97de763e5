// The message of a row about its last action.

import {find, setText} from '../elements.js';
import {removeUnknown} from './inventory.js';

export function createRowMessages() {
    const messages = new Map(); // id → {words, isError, error}

    function update(row, one) {
        const message = messages.get(one.id);
        const line = find(row, '.message');
        setText(line, message ? message.words : '');
        line.classList.toggle('is-error', Boolean(message?.isError));
    }

    function forget(isOver) {
        for (const [id, {error}] of messages) {
            if (isOver(error)) {
                messages.delete(id);
            }
        }
    }

    return {
        tell: (id, words) => messages.set(id, {words}),
        refuse: (id, words) => messages.set(id, {words, isError: true}),
        fail: (id, error) => messages.set(id, {words: error.message, isError: true, error}),
        update,
        forget,
        forgetUnknown: isKnown => removeUnknown(messages, isKnown),
    };
}
