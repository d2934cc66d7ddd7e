package admin

import (
	"context"
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
	if err != nil || !isText(string(name)) {
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

// listByName returns the records of a list whose names come after one, at most n.
type listByName[R any] func(ctx context.Context, after string, n int) ([]R, error)

// pageByName is a page of such a list. item is what an operator sees of a record,
// and its name.
func pageByName[R, T any](ctx context.Context, paging Paging, list listByName[R], item func(R) (name string, item T)) (page Page[T], err error) {
	limit, err := paging.limit()
	if err != nil {
		return page, err
	}
	after, err := paging.name()
	if err != nil {
		return page, err
	}
	records, err := list(ctx, after, limit+1) // one more tells whether there are more
	if err != nil {
		return page, err
	}
	page.Items = []T{}
	last := ""
	for i, record := range records {
		if i == limit {
			page.Next = nameCursor(last)
			break
		}
		var shown T
		last, shown = item(record)
		page.Items = append(page.Items, shown)
	}
	return page, nil
}

// listByTime returns the records of a list that match and come after a position,
// newest first, at most n, and where the list goes on. There may be more although
// none was found.
type listByTime[F, R any] func(ctx context.Context, filter F, from postgres.Position, n int) (records []R, next postgres.Position, more bool, err error)

// pageByTime is a page of such a list. After a.Steps calls of list it ends, however
// little they found.
func pageByTime[F, R, T any](ctx context.Context, a *Admin, paging Paging, filter F, list listByTime[F, R], item func(R) T) (page Page[T], err error) {
	limit, err := paging.limit()
	if err != nil {
		return page, err
	}
	from, err := paging.position()
	if err != nil {
		return page, err
	}
	page.Items = []T{}
	for steps := 1; ; steps++ {
		records, next, more, err := list(ctx, filter, from, limit-len(page.Items))
		if err != nil {
			return page, err
		}
		for _, record := range records {
			page.Items = append(page.Items, item(record))
		}
		if !more {
			return page, nil
		}
		if from = next; len(page.Items) == limit || a.enough(steps) {
			page.Next = timeCursor(next)
			return page, nil
		}
		if err := ctx.Err(); err != nil {
			return page, err
		}
	}
}
