/* The slab ring's words under every interleaving: 2 workers, 1 executor, 2 slabs of 2 rows, at most one crash anywhere.
 *
 * Each statement that touches a shared word is one step; compare-and-swap is the only step that reads and writes.
 * Memory is sequentially consistent here, so weaker orders are not covered. Waiting is a blocked guard: a lost row or
 * slab ends in an invalid end state. Each worker makes one request, a successor one more; worker 0 asks for one row,
 * worker 1 for one or two. Generations never wrap and are drawn when the slab is opened. Locals are cleared when they
 * are dead, to keep the states few.
 *
 * VICTIM: who crashes (0, 1, 2 the executor, 7 nobody), before any shared write or in any wait, which is where a death
 * makes a difference, or never. CANCELLERS: bit set of the workers that may take their rows back at any point. BUG_x
 * takes one rule out; each must be found. */
#define SLABS 2
#define ROWS 2
#define EXECUTOR 2
#define NOBODY 7

#define S_FREE 0
#define S_OPENING 1
#define S_OPEN 2
#define S_SEALED 3
#define S_RUNNING 4
#define S_DONE 5

#define R_FREE 0
#define R_FILLING 1
#define R_READY 2
#define R_RUNNING 3
#define R_DONE 4
#define R_CANCELLED 6
#define R_ABANDONED 7
#define R_ORPHAN 8

/* slab word: state 4 | owner 3 | rows of the last claim 2 | claimed rows 2 | generation
 * row word: state 4 | owner 3 | generation */
#define SLAB(st, ow, la, cl, ge) ((st) | ((ow) << 4) | ((la) << 7) | ((cl) << 9) | ((ge) << 11))
#define ROW(st, ow, ge) ((st) | ((ow) << 4) | ((ge) << 7))
#define STATE(w) ((w) & 15)
#define OWNER(w) (((w) >> 4) & 7)
#define LAST(w) (((w) >> 7) & 3)
#define CLAIMED(w) (((w) >> 9) & 3)
#define SLAB_GEN(w) ((w) >> 11)
#define ROW_GEN(w) ((w) >> 7)
#define MOVED(w, st) (((w) & ~15) | (st))
#define CANCELS(me) ((CANCELLERS >> (me)) & 1)
#define AT(s, r) ((s) * ROWS + (r))
#define DUE(w) (STATE(w) == S_OPEN || (STATE(w) == S_SEALED && OWNER(w) == NOBODY))
#define ROOM(w) (STATE(w) == S_FREE || (STATE(w) == S_OPEN && CLAIMED(w) + k <= ROWS))

int slab[SLABS];
int row[SLABS * ROWS];
byte generation;

/* What the words must imply, kept beside them. */
byte holder[SLABS * ROWS]; /* worker + 1 that may touch the payload */
byte output[SLABS * ROWS]; /* generation whose answer lies there */
bool struck, gone, ended;  /* ended: the executor saw that nothing is left */
byte left = 2;
bool settled; /* the crash happened and was tidied up, or will not happen */

#if VICTIM == NOBODY
#define DIES false
#else
#define DIES (me == VICTIM && !struck)
#endif
#define MAY_DIE if :: atomic { DIES -> struck = true; goto died } :: skip fi

inline cas(word, old, new) {
    atomic { MAY_DIE; if :: word == old -> word = new; ok = true :: else -> ok = false fi }
}

inline stamp(s, w) {
    sr = CLAIMED(w) - LAST(w);
    do
    :: sr < CLAIMED(w) ->
        seen = row[AT(s, sr)];
        if
        :: ROW_GEN(seen) != SLAB_GEN(w) ->
#ifndef BUG_STAMP_UNCHECKED
            if :: slab[s] != w -> break :: else fi;
#endif
            cas(row[AT(s, sr)], seen, ROW(R_FILLING, OWNER(w), SLAB_GEN(w)))
        :: else
        fi;
        sr++
    :: else -> break
    od;
    sr = 0; seen = 0
}

inline recycle(s) {
    w = slab[s];
    if
    :: STATE(w) == S_DONE ->
        sr = 0;
        do
        :: sr < CLAIMED(w) ->
            seen = row[AT(s, sr)];
            if :: STATE(seen) != R_FREE || ROW_GEN(seen) != SLAB_GEN(w) -> break :: else -> sr++ fi
        :: else ->
            cas(slab[s], w, SLAB(S_FREE, 0, 0, 0, SLAB_GEN(w)));
            break
        od
    :: else
    fi;
    sr = 0; seen = 0; w = 0
}

/* Gives one row up in whatever state it is, as cancel and reap do; one that has not begun becomes `waiting`. */
inline give_up(s, r, who, waiting) {
    do
    :: seen = row[AT(s, r)];
        if
        :: OWNER(seen) != who -> break
        :: OWNER(seen) == who && (STATE(seen) == R_FILLING || STATE(seen) == R_READY) -> to = waiting
        :: OWNER(seen) == who && STATE(seen) == R_RUNNING -> to = R_ORPHAN
        :: OWNER(seen) == who && STATE(seen) == R_DONE -> to = R_FREE
        :: else -> break
        fi;
        cas(row[AT(s, r)], seen, MOVED(seen, to));
        if :: ok -> break :: else fi
    od;
    seen = 0; to = 0
}

inline lay_down(s, r) { atomic { assert(holder[AT(s, r)] == me + 1); holder[AT(s, r)] = 0 } }

proctype worker(byte me; byte requests) {
    int w, moved, seen;
    byte s, k, first, gen, r, sr, to;
    bool ok;
    do
    :: requests == 0 -> break
    :: requests > 0 ->
        if :: k = 1 :: me == 1 -> k = 2 fi;
claim:
        s = 0;
        do
        :: s < SLABS ->
            w = slab[s];
            if
            :: STATE(w) == S_OPEN && CLAIMED(w) + k <= ROWS ->
#ifndef BUG_JOIN_WITHOUT_STAMP
                stamp(s, w);
#endif
                moved = SLAB(S_OPEN, me, k, CLAIMED(w) + k, SLAB_GEN(w));
                cas(slab[s], w, moved);
                if :: ok -> first = CLAIMED(w); gen = SLAB_GEN(w); goto claimed :: else fi
            :: else -> s++
            fi
        :: else -> break
        od;
        s = 0;
        do
        :: s < SLABS ->
            w = slab[s];
            if
            :: STATE(w) == S_FREE ->
                atomic {
                    MAY_DIE;
                    if
                    :: slab[s] == w ->
                        generation++;
                        gen = generation;
                        slab[s] = SLAB(S_OPENING, me, 0, 0, gen);
                        ok = true
                    :: else -> ok = false
                    fi
                };
                if
                :: ok ->
                    moved = SLAB(S_OPEN, me, k, k, gen);
                    atomic { MAY_DIE; slab[s] = moved };
                    first = 0;
                    goto claimed
                :: else -> s++
                fi
            :: else -> s++
            fi
        :: else -> break
        od;
        w = 0; s = 0; moved = 0;
        if :: ROOM(slab[0]) || ROOM(slab[1]) :: atomic { DIES -> struck = true; goto died } fi;
        goto claim;
claimed:
        w = 0;
        stamp(s, moved);
        moved = 0;
        r = first;
        do
        :: r < first + k ->
            atomic {
                assert(row[AT(s, r)] == ROW(R_FILLING, me, gen));
                assert(holder[AT(s, r)] == 0);
                holder[AT(s, r)] = me + 1
            };
            r++
        :: else -> break
        od;
        r = first;
        if
        :: CANCELS(me) -> goto cancel
        :: skip
        fi;
        do
        :: r < first + k -> cas(row[AT(s, r)], ROW(R_FILLING, me, gen), ROW(R_READY, me, gen)); assert(ok); r++
        :: else -> break
        od;
        r = first;
        do
        :: r < first + k ->
            if
            :: STATE(row[AT(s, r)]) == R_DONE -> assert(output[AT(s, r)] == gen); r++
            :: CANCELS(me) -> goto cancel
            :: atomic { DIES -> struck = true; goto died }
            fi
        :: else -> break
        od;
        r = first;
        do
        :: r < first + k ->
            lay_down(s, r);
            cas(row[AT(s, r)], ROW(R_DONE, me, gen), ROW(R_FREE, me, gen));
            assert(ok);
            r++
        :: else -> goto released
        od;
cancel:
        r = first;
        do
        :: r < first + k -> lay_down(s, r); give_up(s, r, me, R_CANCELLED); r++
        :: else -> break
        od;
released:
        recycle(s);
        requests--;
        s = 0; k = 0; first = 0; gen = 0; r = 0; ok = false
    od;
    left--;
    goto over;
died:
    atomic {
        w = 0; moved = 0; seen = 0; s = 0; k = 0; first = 0; gen = 0; r = 0; sr = 0; to = 0; requests = 0; ok = false;
        gone = true
    };
over:
    skip
}

proctype executor() {
    int w, w1, seen;
    byte s, n, gen, r, sr, to;
    bool ok;
    byte me = EXECUTOR;
    do
    :: atomic { DIES -> struck = true; goto died }
    :: left == 0 && settled && !DUE(slab[0]) && !DUE(slab[1]) -> break
    :: DUE(slab[0]) || DUE(slab[1]) ->
        w = slab[0];
        w1 = slab[1];
        s = 0;
        if
        :: DUE(w1) && (!DUE(w) || SLAB_GEN(w1) < SLAB_GEN(w)) -> w = w1; s = 1
        :: else
        fi;
        if
        :: !DUE(w)
        :: DUE(w) ->
#ifndef BUG_SEAL_WITHOUT_STAMP
            if :: STATE(w) == S_OPEN -> stamp(s, w) :: else fi;
#endif
            n = CLAIMED(w);
            gen = SLAB_GEN(w);
            cas(slab[s], w, SLAB(S_SEALED, EXECUTOR, 0, n, gen));
            w = 0; w1 = 0;
            if
            :: !ok
            :: else ->
                r = 0;
                do
                :: r < n ->
                    if
                    :: STATE(row[AT(s, r)]) != R_FILLING -> r++
                    :: atomic { DIES -> struck = true; goto died }
                    fi
                :: else -> break
                od;
                cas(slab[s], SLAB(S_SEALED, EXECUTOR, 0, n, gen), SLAB(S_RUNNING, EXECUTOR, 0, n, gen));
                assert(ok);
                r = 0;
                do
                :: r < n ->
                    seen = row[AT(s, r)];
                    ok = true;
                    if :: STATE(seen) == R_READY -> cas(row[AT(s, r)], seen, MOVED(seen, R_RUNNING)) :: else fi;
                    if :: ok -> r++ :: else fi
                :: else -> break
                od;
                r = 0;
                do
                :: r < n ->
                    atomic { if :: STATE(row[AT(s, r)]) == R_RUNNING -> output[AT(s, r)] = gen :: else fi };
                    r++
                :: else -> break
                od;
                r = 0;
                do
                :: r < n ->
                    seen = row[AT(s, r)];
                    ok = true;
                    if
                    :: STATE(seen) == R_RUNNING -> cas(row[AT(s, r)], seen, MOVED(seen, R_DONE))
                    :: STATE(seen) >= R_CANCELLED -> cas(row[AT(s, r)], seen, MOVED(seen, R_FREE))
                    :: else
                    fi;
                    if :: ok -> r++ :: else fi
                :: else -> break
                od;
                cas(slab[s], SLAB(S_RUNNING, EXECUTOR, 0, n, gen), SLAB(S_DONE, 0, 0, n, gen));
                assert(ok);
                recycle(s)
            fi
        fi;
        w = 0; w1 = 0; s = 0; n = 0; gen = 0; r = 0; seen = 0; ok = false
    od;
    ended = true;
    goto over;
died:
    atomic {
        w = 0; w1 = 0; seen = 0; s = 0; n = 0; gen = 0; r = 0; sr = 0; to = 0; ok = false;
        gone = true
    };
over:
    skip
}

inline reap(who) {
    s = 0;
    do
    :: s < SLABS ->
        w = slab[s];
        if
        :: STATE(w) == S_OPENING && OWNER(w) == who -> cas(slab[s], w, SLAB(S_FREE, 0, 0, 0, SLAB_GEN(w)))
        :: else ->
#ifndef BUG_REAP_WITHOUT_STAMP
            do
            :: STATE(w) == S_OPEN ->
                stamp(s, w);
                if :: slab[s] == w -> break :: else -> w = slab[s] fi
            :: else -> break
            od;
#endif
            r = 0;
            do
            :: r < ROWS ->
                atomic { if :: holder[AT(s, r)] == who + 1 -> holder[AT(s, r)] = 0 :: else fi };
                give_up(s, r, who, R_ABANDONED);
                r++
            :: else -> break
            od;
#ifndef BUG_REAP_WITHOUT_RECYCLE
            recycle(s)
#endif
        fi;
        s++
    :: else -> break
    od
}

inline recover() {
    s = 0;
    do
    :: s < SLABS ->
        w = slab[s];
        if
        :: STATE(w) == S_RUNNING || STATE(w) == S_SEALED ->
            r = 0;
            do
            :: r < CLAIMED(w) ->
                seen = row[AT(s, r)];
                ok = true;
                if
                :: STATE(seen) == R_RUNNING -> cas(row[AT(s, r)], seen, MOVED(seen, R_READY))
                :: STATE(seen) == R_ORPHAN -> cas(row[AT(s, r)], seen, MOVED(seen, R_ABANDONED))
                :: else
                fi;
                if :: ok -> r++ :: else fi
            :: else -> break
            od;
            cas(slab[s], w, SLAB(S_SEALED, NOBODY, 0, CLAIMED(w), SLAB_GEN(w)));
            assert(ok)
        :: else ->
#ifndef BUG_RECOVER_WITHOUT_RECYCLE
            recycle(s)
#endif
        fi;
        s++
    :: else -> break
    od
}

/* The supervisor. An executor that was not struck while workers were about is not struck any more. */
init {
    int w, seen;
    byte s, r, sr, to, who = VICTIM, me = NOBODY;
    bool ok;
    atomic { run worker(0, 1); run worker(1, 1); run executor() };
#if VICTIM != NOBODY
    if
    :: gone ->
        if :: who == EXECUTOR -> recover() :: else -> reap(who) fi;
        if :: who == EXECUTOR -> run executor() :: else -> run worker(who, 1) fi
    :: atomic { left == 0 && !struck -> struck = true }
    fi;
#endif
    atomic { w = 0; seen = 0; s = 0; r = 0; sr = 0; to = 0; ok = false; settled = true };
    (left == 0 && ended);
    assert(STATE(slab[0]) == S_FREE && STATE(slab[1]) == S_FREE);
    assert(holder[0] + holder[1] + holder[2] + holder[3] == 0);
#if VICTIM != NOBODY
    goto over;
died:
    assert(false);
over:
    skip
#else
died:
    skip
#endif
}
