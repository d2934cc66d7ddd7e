package admin

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-scope/caddy-scope/postgres"
)

// Page is a part of a list.
type Page[T any] struct {
	Items []T `json:"items"`
	// Next is the cursor at which the list goes on; empty: this was all of it.
	Next string `json:"next,omitempty"`
}

// Bounds of Paging.Limit.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Paging is which part of a list.
type Paging struct {
	After string // cursor of the page before; empty: from the beginning
	Limit int    // items at most; zero: DefaultLimit
}

func (p Paging) limit() (int, error) {
	switch {
	case p.Limit == 0:
		return DefaultLimit, nil
	case p.Limit < 1 || p.Limit > MaxLimit:
		return 0, invalid("limit %d is not from 1 to %d", p.Limit, MaxLimit)
	}
	return p.Limit, nil
}

var errCursor = invalid("the cursor is none: take `next` of the page before, as it is")

// A cursor holds no more than its page told, and is encoded so that it is taken
// as it is.
var cursorEncoding = base64.RawURLEncoding

func nameCursor(name string) string { return cursorEncoding.EncodeToString([]byte(name)) }

// name is the position of a list that is ordered by name.
func (p Paging) name() (string, error) {
	name, err := cursorEncoding.DecodeString(p.After)
	if err != nil {
		return "", errCursor
	}
	return string(name), nil
}

func timeCursor(p postgres.Position) string {
	return nameCursor(strconv.FormatInt(p.At.UnixMicro(), 10) + " " + p.ID.String())
}

// position is that of a list that is ordered by time.
func (p Paging) position() (position postgres.Position, err error) {
	if p.After == "" {
		return position, nil
	}
	text, err := p.name()
	if err != nil {
		return position, err
	}
	at, id, _ := strings.Cut(text, " ")
	micros, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return position, errCursor
	}
	position.At = time.UnixMicro(micros)
	if position.ID, err = uuid.Parse(id); err != nil {
		return position, errCursor
	}
	return position, nil
}
