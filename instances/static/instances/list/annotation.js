// Owner, project and note of one instance: the form in its details; owner and project of the selected ones.

import {find, set, setDisabled} from '../elements.js';
import {request} from '../service.js';
import {send} from '../session.js';
import {removeUnknown} from './inventory.js';

const FIELDS = ['owner', 'project', 'note'];

export function createAnnotation({messages, statusLine, getSelected, refreshAnew, render}) {
    const manyForm = document.getElementById('selection-annotation');
    const manyButton = document.querySelector('[data-do=annotate-selected]');
    const opened = new Set(); // ids of instances whose form is open

    function updateDetails(detail, one) {
        const isOpen = opened.has(one.id);
        const button = find(detail, '[data-do=annotate]');
        const form = find(detail, '.annotating form');
        const hadFocus = form.contains(document.activeElement);
        set(button, 'hidden', isOpen);
        set(button, 'ariaLabel', `Edit owner and project of ${one.name || one.id}…`);
        set(form, 'hidden', !isOpen);
        if (hadFocus && !isOpen) {
            button.focus({preventScroll: true});
        }
    }

    // Fills the form with the annotation by hand, which a rule's owner and project are not.
    async function open(button, detail) {
        const {id} = detail.dataset;
        setDisabled(button, true);
        try {
            const answer = await request(getPath(id));
            const annotation = await answer.json();
            if (!answer.ok) {
                throw new Error(annotation.message);
            }
            const form = detail.querySelector('.annotating form');
            for (const name of FIELDS) {
                form.elements[name].value = annotation.byHand || name === 'note' ? annotation[name] || '' : '';
            }
            opened.add(id);
        } catch (error) {
            messages.fail(id, error);
        }
        setDisabled(button, false);
        render();
        if (opened.has(id)) {
            detail.querySelector('.annotating input').focus();
        }
    }

    async function submit(form, detail) {
        const {id} = detail.dataset;
        const button = form.querySelector('[type=submit]');
        if (button.getAttribute('aria-disabled') === 'true') {
            return;
        }
        setDisabled(button, true);
        try {
            const body = Object.fromEntries(FIELDS.map(name => [name, form.elements[name].value.trim()]));
            const result = await send('PUT', getPath(id), body);
            messages.tell(id, `${result.message}.`);
            opened.delete(id);
        } catch (error) {
            messages.fail(id, error);
        }
        setDisabled(button, false);
        render();
        await refreshAnew();
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
        if (element.closest('#selection-annotation')) {
            toggleSelected(false);
            return true;
        }
        const detail = element.closest('.annotating') && element.closest('tr.detail');
        const isOpen = Boolean(detail) && opened.delete(detail.dataset.id);
        if (isOpen) {
            render();
            detail.querySelector('[data-do=annotate]').focus();
        }
        return isOpen;
    }

    return {
        updateDetails,
        takeBack,
        forgetUnknown: isKnown => removeUnknown(opened, isKnown),
        actions: {
            annotate: open,
            'annotate-now': submit,
            'annotate-cancel': takeBack,
            'annotate-selected': () => toggleSelected(manyForm.hidden),
            'annotate-selected-now': submitSelected,
            'annotate-selected-cancel': () => toggleSelected(false),
        },
    };
}

function getPath(id) {
    return `/api/instances/${encodeURIComponent(id)}/annotation`;
}
