// Owner, project and note of one instance: their section in the drawer, with its form; owner and project of the
// selected instances.

import {make, set, setDisabled, setText} from '../elements.js';
import {read} from '../service.js';
import {send} from '../session.js';
import {fill, makeSection} from './facts.js';

const FIELDS = {owner: 100, project: 100, note: 1000}; // name → length

export function createAnnotation({statusLine, getSelected, refreshAnew, render}) {
    const manyForm = document.getElementById('selection-annotation');
    const manyButton = document.querySelector('[data-do=annotate-selected]');
    const {section, list, button, form, failure} = makeParts();
    const saveButton = form.querySelector('[type=submit]');
    let id = ''; // of the instance that is shown
    let annotation = null; // as the service describes it; null until it was read
    let readFor = ''; // owner and project when it was read

    function begin() {
        id = '';
        annotation = null;
        readFor = '';
        toggle(false);
    }

    function toggle(isOpen) {
        form.hidden = !isOpen;
        list.hidden = isOpen;
        button.hidden = isOpen;
        setText(failure, '');
    }

    function updateSection(one, isGone) {
        id = one.id;
        const shown = JSON.stringify([one.id, one.owner, one.project]);
        if (shown !== readFor) {
            readFor = shown;
            readAnew();
        }
        fill(list, [
            {title: 'Owner', text: one.owner},
            {title: 'Project', text: one.project},
            {title: 'Note', text: annotation?.note},
            ...annotation?.changedBy ? [{title: 'Set by', text: annotation.changedBy}] : [],
            ...annotation && !annotation.byHand && (one.owner || one.project) ? [{title: 'Set by', text: 'a rule for names'}] : [],
        ]);
        set(button, 'hidden', isGone || !form.hidden);
    }

    async function readAnew() {
        const wanted = id;
        try {
            const answer = await read(getPath(wanted));
            if (wanted === id) {
                annotation = answer;
                render();
            }
        } catch (error) {
            if (wanted === id) {
                setText(failure, error.message);
            }
        }
    }

    // Fills the form with the annotation by hand, which a rule's owner and project are not.
    async function open() {
        const wanted = id;
        setDisabled(button, true);
        await readAnew();
        setDisabled(button, false);
        if (wanted !== id || !annotation) {
            return;
        }
        for (const name of Object.keys(FIELDS)) {
            form.elements[name].value = annotation.byHand || name === 'note' ? annotation[name] || '' : '';
        }
        toggle(true);
        form.elements.owner.focus();
    }

    async function submit() {
        const wanted = id;
        if (saveButton.getAttribute('aria-disabled') === 'true') {
            return;
        }
        setDisabled(saveButton, true);
        try {
            const body = Object.fromEntries(Object.keys(FIELDS).map(name => [name, form.elements[name].value.trim()]));
            const answer = await send('PUT', getPath(wanted), body);
            if (wanted === id) {
                annotation = answer;
                close();
            }
        } catch (error) {
            setText(failure, error.message);
        }
        setDisabled(saveButton, false);
        await refreshAnew();
    }

    function close() {
        toggle(false);
        render();
        button.focus({preventScroll: true});
    }

    function toggleSelected(isOpen) {
        manyForm.hidden = !isOpen;
        (isOpen ? manyForm.elements.owner : manyButton).focus();
    }

    function submitSelected() {
        return statusLine.run(manyForm.querySelector('[type=submit]'), 'Saving…', async () => {
            const {owner, project} = manyForm.elements;
            const body = {ids: getSelected(), owner: owner.value.trim(), project: project.value.trim()};
            const {message} = await send('PUT', '/api/annotations', body);
            manyForm.reset();
            toggleSelected(false);
            await refreshAnew();
            return `${message}.`;
        });
    }

    // Returns whether the element belongs to an open form.
    function takeBack(element) {
        const isMany = element.closest('#selection-annotation') !== null;
        const isOne = form.contains(element);
        if (isMany) {
            toggleSelected(false);
        } else if (isOne) {
            close();
        }
        return isMany || isOne;
    }

    return {
        section,
        begin,
        updateSection,
        takeBack,
        actions: {
            annotate: open,
            'annotate-now': submit,
            'annotate-cancel': close,
            'annotate-selected': () => toggleSelected(manyForm.hidden),
            'annotate-selected-now': submitSelected,
            'annotate-selected-cancel': () => toggleSelected(false),
        },
    };
}

function makeParts() {
    const list = make('dl', {});
    const failure = make('p', {class: 'is-error', role: 'alert'});
    const button = make('button', {type: 'button', 'data-do': 'annotate', 'data-needs': 'operator'}, 'Edit…');
    const form = make('form', {hidden: '', novalidate: '', 'aria-label': 'Owner and project', 'data-submit': 'annotate-now', 'data-needs': 'operator'},
        ...Object.entries(FIELDS).map(([name, length]) => make('label', {}, `${name[0].toUpperCase()}${name.slice(1)} `,
            make(name === 'note' ? 'textarea' : 'input', {name, maxlength: length, autocomplete: 'off'}))),
        make('div', {class: 'form-buttons'},
            make('button', {type: 'submit', class: 'is-main'}, 'Save'),
            make('button', {type: 'button', 'data-do': 'annotate-cancel'}, 'Cancel')));
    const section = makeSection('Owner and project', list, button, form, failure);
    return {section, list, button, form, failure};
}

function getPath(id) {
    return `/api/instances/${encodeURIComponent(id)}/annotation`;
}
