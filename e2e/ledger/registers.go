package ledger

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// checkLimit bounds the search for an order that explains one history.
const checkLimit = 20 * time.Second

// checkRegisters looks for an order of the calls that explains their answers, a
// code and a family at a time.
func checkRegisters(es Entries) (violations []string) {
	codes, families := make(map[string]Entries), make(map[string]Entries)
	for _, e := range es {
		switch {
		case e.Kind == Redeem:
			codes[e.Code] = append(codes[e.Code], e)
		case e.Kind == Refresh, e.Kind == Revoke:
			families[e.Session] = append(families[e.Session], e)
		}
	}
	first := make(map[string]string)
	for _, e := range es.Of(Redeem) {
		if e.OK() {
			first[e.Session] = e.Refresh
		}
	}
	for code, history := range codes {
		if !linearizable(codeRegister.ToModel(), history) {
			violations = append(violations, fmt.Sprintf("I2: no order explains the redemptions of code %.12s…: %v", code, history))
		}
	}
	for session, history := range families {
		if !linearizable(familyRegister(first[session]).ToModel(), history) {
			violations = append(violations, fmt.Sprintf("I2: no order explains the refreshes of session %s: %v", session, history))
		}
	}
	return violations
}

// linearizable reports whether some order explains the history. A call whose
// outcome is not known may take effect at any time after it was sent, or never.
func linearizable(model porcupine.Model, history Entries) bool {
	var operations []porcupine.Operation
	unknown := make(map[string]int) // what was asked -> its operation
	for _, e := range history {
		returned := int64(e.Returned)
		if !e.known() {
			// The same thing asked again without an answer is as one call that
			// began with the first: neither takes effect twice.
			asked := string(e.Kind) + " " + e.Presented
			if i, ok := unknown[asked]; ok {
				operations[i].Call = min(operations[i].Call, int64(e.Sent))
				continue
			}
			unknown[asked] = len(operations)
			returned = math.MaxInt64
		}
		operations = append(operations, porcupine.Operation{ClientId: len(operations), Input: e, Call: int64(e.Sent), Output: e, Return: returned})
	}
	return porcupine.CheckOperationsTimeout(model, operations, checkLimit) == porcupine.Ok
}

// codeRegister is a code: unused, then used. Its states are booleans.
var codeRegister = &porcupine.NondeterministicModel{
	Init: func() []any { return []any{false} },
	Step: func(state, input, _ any) []any {
		e, used := input.(Entry), state.(bool)
		switch {
		case !e.known():
			return []any{used, true}
		case e.OK() && used, !e.OK() && !used:
			return nil
		}
		return []any{true}
	},
}

// family is the state of a session's refresh tokens.
type family struct {
	revoked        bool
	previous, head string // head unwritten: nobody was told it yet
}

const unwritten = "?"

// familyRegister is the head token of a family: a refresh moves it, and asked
// again with the token before it answers the same successor (the grace, which a
// client of this package never leaves).
func familyRegister(first string) *porcupine.NondeterministicModel {
	return &porcupine.NondeterministicModel{
		Init: func() []any { return []any{family{head: first}} },
		Step: func(state, input, _ any) []any {
			var next []any
			for _, f := range state.(family).after(input.(Entry)) {
				if !slices.Contains(next, any(f)) {
					next = append(next, f)
				}
			}
			return next
		},
	}
}

func (f family) after(e Entry) []family {
	over := family{revoked: true}
	switch {
	case e.Kind == Revoke && e.known():
		return []family{over} // also when there was nothing left to revoke
	case e.Kind == Revoke:
		return []family{f, over}
	case f.revoked && e.OK():
		return nil
	case f.revoked:
		return []family{f}
	case !e.known() && e.Presented == f.head:
		return []family{f, {previous: f.head, head: unwritten}}
	case !e.known():
		return []family{f}
	case !e.OK():
		return nil // refused, and nobody had revoked it
	case e.Presented == f.head, e.Presented == f.previous && f.head == unwritten:
		return []family{{previous: e.Presented, head: e.Refresh}}
	case e.Presented == f.previous && e.Refresh == f.head:
		return []family{f}
	}
	return nil
}
