-- One row per coin and observed hour, labelled with what the same coin's price did in the five days that followed.
--
-- `snapshots` holds market rows (one believed row per token and hour). The text runs unchanged on DuckDB and, over a
-- table of the same columns, on Athena.
--
-- * `segment` counts how often the coin's units, or the source of its rows, have changed: prices across such a break do
--   not compare, and the row is censored.
-- * The join is on time alone: asking for the same calendar month too, as the published query did, loses every label
--   that crosses a month's end.
-- * A row whose future price is missing stays, as 'censored': coins that leave the listing are mostly losers, and
--   dropping them flatters every score.
-- * ROUND(..., 9): a price that rises by exactly 10 % in its decimal digits (0.0010 to 0.0011) must give y = 0, and
--   binary division would put it on either side.
-- * Candles and bought history know no rank. That says nothing against a coin, and its row is labelled.
-- * Any other null fails `<= 1000`, so that a coin is labelled from the hour on in which its seven-day change exists.
SELECT
    now_.*,
    later.percent_change_7d AS y_percentage_change7d,
    (later.price - now_.price) / now_.price * 100 AS cal_price_change,
    later.timestamp AS label_end,
    CASE
        WHEN later.price IS NULL THEN NULL
        WHEN ROUND((later.price - now_.price) / now_.price * 100, 9) <= 10 THEN 0
        ELSE 1
    END AS y,
    CASE WHEN later.price IS NULL THEN 'censored' ELSE 'labelled' END AS label_status
FROM snapshots AS now_
LEFT JOIN snapshots AS later
    ON now_.token = later.token
    AND now_.segment = later.segment
    AND now_.timestamp + INTERVAL '5' DAY = later.timestamp
WHERE
    now_.percent_change_7d <= 1000
    AND now_.volume_change_24h <= 1000
    AND COALESCE(now_.cmc_rank <= 1000, now_.origin = 'cmc:history' OR now_.origin LIKE 'candles:%')
