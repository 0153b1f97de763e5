// The dialog that confirms one action: what it does, what it costs, what may be lost. Its harmless button has the focus.

import {make, setText} from './elements.js';

// How far the destructive button keeps from the place that was pressed.
const DISTANCE = 12;
// A double press ends within this time.
const DOUBLE_PRESS_MS = 500;

export function createConfirm() {
    const heading = make('h2', {id: 'confirm-title'});
    const facts = make('p', {id: 'confirm-facts', class: 'facts quiet'});
    const words = make('ul', {id: 'confirm-words', class: 'words'});
    const label = make('span', {});
    const input = make('input', {autocomplete: 'off'});
    const field = make('label', {}, label, input);
    const select = make('select', {});
    const choiceLabel = make('span', {});
    const choiceField = make('label', {}, choiceLabel, select);
    const closeButton = make('button', {type: 'button'}, 'Cancel');
    const goButton = make('button', {type: 'submit'});
    const form = make('form', {novalidate: ''}, heading, facts, words, choiceField, field, make('div', {class: 'buttons'}, closeButton, goButton));
    const dialog = make('dialog', {
        id: 'confirm', 'aria-labelledby': heading.id, 'aria-describedby': `${facts.id} ${words.id}`,
    }, form);
    document.getElementById('content').append(dialog);
    let question = null; // {findOpener, resolve, answer} of the open dialog
    let pressed = null; // where the pointer was pressed last

    // Returns null, or the confirmation {text, choice} with the values of the fields. The heading asks `title`, and
    // `name` if that is a text from outside. `facts` tell which instance is meant. `link` is {text, href}, `field` {label, maxLength, isOptional},
    // `choice` {label, options: [[value, text]]}.
    // `findOpener` returns what gets the focus when the opener is gone. `keep` is the text of the harmless button.
    function ask({title, name, facts: meant, sentences, link, field: wanted, choice, action, keep, isDanger, findOpener}) {
        close();
        heading.replaceChildren(title, ...name ? [' ', make('bdi', {}, name)] : [], '?');
        setText(facts, meant ?? '');
        words.replaceChildren(...sentences.map(text => make('li', {}, text)), ...link ? [make('li', {}, makeLink(link))] : []);
        field.hidden = !wanted;
        input.required = Boolean(wanted && !wanted.isOptional);
        input.value = '';
        input.maxLength = wanted?.maxLength ?? 1;
        setText(label, wanted?.label ?? '');
        choiceField.hidden = !choice;
        select.replaceChildren(...(choice?.options ?? []).map(([value, text]) => new Option(text, value)));
        setText(choiceLabel, choice?.label ?? '');
        setText(goButton, action);
        setText(closeButton, keep ?? 'Cancel');
        goButton.classList.toggle('is-danger', Boolean(isDanger));
        goButton.classList.toggle('is-main', !isDanger);
        const opener = document.activeElement;
        dialog.showModal();
        (wanted ? input : closeButton).focus();
        keepDistance(opener);
        return new Promise(resolve => {
            question = {findOpener, resolve, answer: null};
        });
    }

    // Moves the dialog so that a second press at the same place, meant for the page, doesn't confirm.
    function keepDistance(opener) {
        dialog.style.translate = '';
        // In Safari a press doesn't focus a button: the opener is then the body, which is everywhere.
        const openers = opener === document.body ? [] : [opener.getBoundingClientRect()];
        const own = goButton.getBoundingClientRect();
        const frame = dialog.getBoundingClientRect();
        const places = [...openers, ...pressed ? [{left: pressed.x, right: pressed.x, top: pressed.y, bottom: pressed.y}] : []]
            .filter(place => place.left < own.right + DISTANCE && place.right > own.left - DISTANCE
                && place.top < own.bottom + DISTANCE && place.bottom > own.top - DISTANCE);
        if (places.length) {
            const up = own.bottom + DISTANCE - Math.min(...places.map(place => place.top));
            const down = Math.max(...places.map(place => place.bottom)) + DISTANCE - own.top;
            dialog.style.translate = `0 ${frame.top >= up ? -up : down}px`;
        }
    }

    function close() {
        if (dialog.open) {
            dialog.close();
        }
        finish();
    }

    // The browser gives the focus back to the opener, unless that is gone.
    function finish() {
        if (!question) {
            return;
        }
        const {findOpener, resolve, answer} = question;
        question = null;
        const focused = document.activeElement;
        if (!focused || focused === document.body || dialog.contains(focused)) {
            const found = findOpener?.();
            (found?.checkVisibility() ? found : document.getElementById('content')).focus({preventScroll: true});
        }
        resolve(answer);
    }

    form.addEventListener('submit', () => {
        const text = input.value.trim();
        if (input.required && !text) {
            input.focus();
        } else if (question) {
            question.answer = {text, choice: select.value};
            close();
        }
    });
    closeButton.addEventListener('click', close);
    dialog.addEventListener('close', () => {
        // The event comes later. The dialog may have another question by then.
        if (!dialog.open) {
            finish();
        }
    });
    document.addEventListener('pointerdown', ({clientX, clientY}) => {
        pressed = {x: clientX, y: clientY};
    }, {capture: true, passive: true});
    document.addEventListener('keydown', () => {
        pressed = null;
    }, {capture: true, passive: true});

    return ask;
}

function makeLink({text, href}) {
    const link = make('a', {href, target: '_blank', rel: 'noreferrer'}, text);
    const madeAt = performance.now();
    link.addEventListener('click', event => {
        if (performance.now() - madeAt < DOUBLE_PRESS_MS) {
            event.preventDefault();
        }
    });
    return link;
}
