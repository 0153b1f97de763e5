// The message of a row about its last action: one line beside the buttons. Results go after a while, errors when closed.

import {make, setText} from '../elements.js';
import {removeUnknown} from './inventory.js';

const RESULT_SECONDS = 20;

// `getRow(id)` returns the row, `getName(id)` the instance's name for screen readers, `render` shows the rows again.
export function createRowMessages({getRow, getName, render}) {
    const messages = new Map(); // id → {words, isError, error}
    const announcer = make('p', {class: 'visually-hidden', role: 'status'});
    // Outside of what a drawer makes inert.
    document.body.append(announcer);

    function update(row, one) {
        const message = messages.get(one.id);
        const line = row.querySelector('.message');
        if (!message) {
            line?.remove();
            return;
        }
        const shown = line || row.querySelector('.actions').appendChild(makeLine());
        const words = shown.querySelector('span');
        setText(words, message.words);
        words.title = message.words;
        shown.classList.toggle('is-error', Boolean(message.isError));
        shown.querySelector('button').hidden = !message.isError;
    }

    function put(id, message) {
        messages.set(id, message);
        // One region for all rows: a screen reader needn't watch a hundred.
        setText(announcer, `${getName(id)}: ${message.words}`);
    }

    function tell(id, words) {
        const message = {words};
        put(id, message);
        setTimeout(() => {
            if (messages.get(id) === message) {
                messages.delete(id);
                render();
            }
        }, 1000 * RESULT_SECONDS);
    }

    function forget(isOver) {
        for (const [id, {error}] of messages) {
            if (isOver(error)) {
                messages.delete(id);
            }
        }
    }

    function close(button) {
        const {id} = button.closest('[data-id]').dataset;
        messages.delete(id);
        render();
        getRow(id)?.querySelector('.name').focus({preventScroll: true});
    }

    return {
        tell,
        refuse: (id, words) => put(id, {words, isError: true}),
        fail: (id, error) => put(id, {words: error.message, isError: true, error}),
        update,
        forget,
        forgetUnknown: isKnown => removeUnknown(messages, isKnown),
        actions: {'close-message': close},
    };
}

function makeLine() {
    const button = make('button', {type: 'button', class: 'is-plain', 'data-do': 'close-message', 'aria-label': 'Close the message'});
    return make('p', {class: 'message'}, make('span', {}), ' ', button);
}
