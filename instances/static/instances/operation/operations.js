// Operations on many instances: the dialog before, the panel while and after.

import {createFollower} from './follower.js';
import {createPanel} from './panel.js';
import {createPlan} from './plan.js';
import {getTone} from './states.js';
import {sayDoing, sayPageTitle} from './words.js';

// `onChange` is called when the page's title may have changed, `refresh` reads the service again.
// `ask` opens the dialog that confirms one action.
export function createOperations({root, ask, onChange, refresh}) {
    const follower = createFollower({
        onChange: () => {
            panel.render();
            onChange();
        },
        onLaunch: () => panel.focus(),
        refresh,
    });
    const panel = createPanel({
        root,
        follower,
        ask,
        restore: (id, ids) => plan.open('start', ids, ids.length, id),
    });
    const plan = createPlan({root, onConfirm: follower.start});

    function getPageTitle() {
        const {launch, shown} = follower;
        if (shown && !launch) {
            return sayPageTitle(shown);
        }
        return launch && !launch.isError ? `${sayDoing(launch.kind)}…` : '';
    }

    function hasTrouble() {
        const {launch, shown} = follower;
        return Boolean(launch ? launch.isError : shown && getTone(shown) === 'trouble');
    }

    return {
        preview: plan.open,
        follow: plan.follow,
        take: follower.takeList,
        tick: panel.tick,
        getPageTitle,
        hasTrouble,
        actions: {...plan.actions, ...panel.actions},
    };
}
