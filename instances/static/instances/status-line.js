// The status line: the progress, result or error of a toolbar button. A result goes after a while, an error stays until
// somebody closes it; the error of an outage goes with the outage.

import {isDisabled, make} from './elements.js';

const RESULT_SECONDS = 10;

export function createStatusLine() {
    const line = document.getElementById('status');
    const words = document.getElementById('status-words');
    const alert = document.getElementById('status-error');
    let lastError = null;
    let timer = 0;

    line.append(make('button', {type: 'button', class: 'is-plain', 'data-do': 'close-status', 'aria-label': 'Close the message'}));

    function tell(text, isError = false) {
        show(text, isError);
        if (!isError) {
            timer = setTimeout(() => show(''), 1000 * RESULT_SECONDS);
        }
    }

    // Screen readers announce an error at once and other texts at the next pause.
    function show(text, isError = false) {
        clearTimeout(timer);
        const [told, silent] = isError ? [alert, words] : [words, alert];
        silent.textContent = '';
        told.textContent = text;
        line.classList.toggle('is-error', isError);
        line.classList.toggle('is-shown', text !== '');
    }

    // Runs the work of a button, which is busy meanwhile; `work` returns the result as a sentence.
    async function run(button, text, work) {
        if (isDisabled(button)) {
            return;
        }
        button.setAttribute('aria-disabled', 'true');
        button.setAttribute('aria-busy', 'true');
        show(text);
        try {
            tell(await work());
        } catch (error) {
            lastError = error;
            tell(error.message, true);
        } finally {
            button.removeAttribute('aria-disabled');
            button.removeAttribute('aria-busy');
        }
    }

    function forgetError(isOver) {
        if (lastError && isOver(lastError)) {
            if (alert.textContent === lastError.message) {
                show('');
            }
            lastError = null;
        }
    }

    // Replaces a text, unless another one has taken its place.
    function amend(old, text) {
        if (words.textContent === old) {
            tell(text);
        }
    }

    return {tell, run, forgetError, amend, actions: {'close-status': () => show('')}};
}
